"""Errors, paths, files and progress. Imports no other folder of the package."""
