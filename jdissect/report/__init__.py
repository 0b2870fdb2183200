"""Presents results: pages, figures, tables, and exports to other programs' formats."""
