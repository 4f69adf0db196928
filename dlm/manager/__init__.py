"""The dialogue manager: events, conversations folded over them, and the actions they execute."""
