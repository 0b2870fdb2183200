"""Reads images: files, formats, content hashes, batches."""
