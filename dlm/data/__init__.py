"""From dialogues to batches: the encoded cache, the packing plan, the batches and their audit."""
