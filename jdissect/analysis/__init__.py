"""What follows from stored counts: comparisons, and how sure one may be of them."""
