"""Scores of a tuned model, its predictions and live replays, and the report of a run."""
