"""Errors, paths, files and progress. Imports nothing of the other folders."""
