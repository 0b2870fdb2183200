"""Dissects networks: passes over images, and resuming them. `api` is the library."""
