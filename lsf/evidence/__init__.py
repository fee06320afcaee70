"""What was measured of choices of blocks: sweeps, regret, the study of many sweeps, and the rule that rests on them."""
