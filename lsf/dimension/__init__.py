"""d_90, the intrinsic dimension of a task: the search, what is asked and found, and what was measured before."""
