"""A whole run, from a config to a finished run directory."""
