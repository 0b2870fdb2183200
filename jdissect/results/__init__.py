"""Results of dissections, in memory and on disk."""
