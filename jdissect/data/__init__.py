"""How images are read: files, formats, content hashes, batches."""
