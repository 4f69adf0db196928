"""A real checkpoint: SmolLM2-135M-Instruct, four bits a weight."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from dlm.models import families
from dlm.models.decoder import Model
from dlm.weights.sources import open_source

LENGTH = 64

# The checkpoint's own template, as ids: its default system turn, the question, the answer's header.
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
ANSWER = "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_it_knows_the_capital_of_france(smollm2_gguf):
    """Rows of q and k in the wrong order babble; here it answers. The config is the preset's."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name
    )
    source = open_source(str(smollm2_gguf))
    assert source.config == replace(families.preset("smollm2-135m"), head_width=64)
    model = Model(source.config)
    params = source.load(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 134_515_008
    positions = np.arange(LENGTH, dtype=np.int32)[None]

    @jax.jit
    def next_token(params, tokens, count):
        hidden = model.hidden(params, tokens, positions, (positions < count).astype(np.int32))
        return model.logits(params, hidden[0, count - 1]).argmax()

    ids = tokenizer(PROMPT)["input_ids"]
    written: list[int] = []
    while source.metadata["tokenizer.ggml.eos_token_id"] not in written and len(ids) < LENGTH:
        tokens = np.zeros((1, LENGTH), np.int32)
        tokens[0, : len(ids)] = ids
        written.append(int(next_token(params, tokens, len(ids))))
        ids.append(written[-1])
    assert tokenizer.decode(written) == ANSWER
