"""Writes HTML pages of runs and comparisons, from templates."""
