"""What people look at: pages, figures, tables, and files for other programs."""
