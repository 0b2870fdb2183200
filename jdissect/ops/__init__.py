"""Pure functions on arrays, without I/O, Flax or configuration."""
