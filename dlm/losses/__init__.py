"""Losses: three levels of pure functions, and the machinery that keeps them exact and cheap."""
