"""Measurements; every table in README names the one that prints it."""
