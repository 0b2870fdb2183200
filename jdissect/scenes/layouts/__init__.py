"""Layouts: one function per class that returns a stage with its things."""
