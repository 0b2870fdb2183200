"""Networks from checkpoint folders, and the saved state of runs."""
