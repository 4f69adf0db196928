"""Generation: prefill, one compiled decode step, sampling, and grammars for what may be written."""
