"""The networks in plain PyTorch, written apart from ours, to compare with."""
