"""Pure functions on arrays: no I/O, no Flax, no configuration."""
