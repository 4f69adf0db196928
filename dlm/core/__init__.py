"""Mean, path rules, the config border, errors, files and progress; tiny, and without JAX."""
