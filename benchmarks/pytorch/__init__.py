"""What jdissect is compared with: dissection and training in PyTorch."""
