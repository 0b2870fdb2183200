"""What a dissection found, in memory and on disk."""
