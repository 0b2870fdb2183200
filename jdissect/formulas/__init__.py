"""Finds formulas over concepts that say where a unit fires: "water AND NOT blue"."""
