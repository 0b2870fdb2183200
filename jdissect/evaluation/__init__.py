"""Measures errors of a classifier or a segmenter on labelled images."""
