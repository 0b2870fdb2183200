"""Scores of units against concepts, beside IoU."""
