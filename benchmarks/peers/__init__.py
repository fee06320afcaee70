"""Other people's tools reading the same states; run from virtual environments of their own, without LSF."""
