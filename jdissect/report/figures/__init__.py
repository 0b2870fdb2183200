"""Draws figures as SVG and PNG files."""
