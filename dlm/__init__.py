"""Fine-tune GPT-like models in JAX/Flax on dialogues, and talk to them through their actions."""
