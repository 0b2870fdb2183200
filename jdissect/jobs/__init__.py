"""Runs a whole dissection, from a config to a finished run directory."""
