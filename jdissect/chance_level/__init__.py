"""Compares a layer's best IoUs with those that chance alone gives."""
