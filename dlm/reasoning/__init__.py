"""Knowledge: the graph that actions read and change. No JAX."""
