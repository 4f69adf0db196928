"""Optimiser, train step, loop, checkpoints and the metrics log."""
