"""Measures what a classifier loses when units are set to zero."""
