"""The embedded corpus: dialogues with a concierge over seeded cities, each a knowledge graph."""
