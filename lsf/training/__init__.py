"""Tuning what a plan names: methods, the training loop, evaluation, and the proof of what moved."""
