"""HTML pages of runs and of comparisons, with their templates."""
