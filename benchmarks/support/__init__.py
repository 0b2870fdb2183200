"""What several benchmarks share, and parts of one that are no commands."""
