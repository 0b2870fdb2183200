"""Analyses stored counts: comparisons of networks, and their uncertainty."""
