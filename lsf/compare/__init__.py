"""Runs side by side: one table, ratios to full fine-tuning, mean and spread over seeds, and what is not dominated."""
