"""Scores of generated responses: one file a scorer, found by its name."""
