"""Corpora: one reader a corpus, built once by TFDS and read back at random access."""
