"""The networks in plain PyTorch, written independently, for comparison."""
