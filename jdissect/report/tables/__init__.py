"""Formats tables as text."""
