"""Plans, runs and analyses for other tools."""
