"""A real checkpoint: SmolLM2-135M-Instruct, four bits a weight."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

import run
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

LLAMA_CPP = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = sys.argv[1], 256, 1
question = {"role": "user", "content": "What is the capital of France?"}
asked = {"messages": [question], "temperature": 0, "max_tokens": 32}
choice = xllamacpp.Server(params).handle_chat_completions(asked)["choices"][0]
print("ANSWER" + json.dumps([choice["finish_reason"], choice["message"]["content"]]))
"""


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


@pytest.mark.slow
def test_llama_cpp_serves_what_is_exported(smollm2_gguf, tmp_path):
    """Weights, tokenizer, chat template and end of turn, by way of a run of ours."""
    pytest.importorskip("xllamacpp")
    words = [f"--source={smollm2_gguf}", f"--target={tmp_path / 'run'}", "--format=dlm"]
    assert run.guarded(["import", *words]) == 0
    words = [f"--source={tmp_path / 'run'}", f"--target={tmp_path / 'out.gguf'}", "--format=gguf"]
    assert run.guarded(["export", *words, "--dtype=float16"]) == 0
    command = [sys.executable, "-c", LLAMA_CPP, str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    _, marked, answer = done.stdout.partition("ANSWER")
    assert marked, done.stderr[-2000:]
    said = json.JSONDecoder().raw_decode(answer)[0]
    assert said == ["stop", ANSWER.removesuffix("<|im_end|>")]
