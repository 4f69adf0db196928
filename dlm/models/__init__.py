"""The decoder: its config, attention, cache and the presets of the GPT-2 and Llama families."""
