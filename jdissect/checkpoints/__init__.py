"""Loads networks from checkpoint folders, and saves the state of runs."""
