"""Prepares one JSONL file for training, from text to packed rows, with dlm or with TRL.

    python experiments/prepare.py dlm|trl FILE TOKENIZER CACHE LENGTH CORES

`bench_data.py` runs it, each time in a new process. FILE holds one `{"messages": [{"role",
"content"}]}` a line, TOKENIZER is a folder that transformers can load, with a chat template that
marks what the assistant says. Prints one JSON object: seconds, and those of the processors (imports
and loading the tokenizer left out), rows, tokens and learned tokens, and the peak memory of the
largest process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Figures = dict[str, Any]


def processor_seconds() -> float:
    """Seconds that this process computed, and those that it started and that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def prepare_dlm(file: str, folder: str, cache: str, length: int, cores: int) -> Figures:
    """Ours: the corpus is built, encoded and packed; the number of processes is our own choice."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from dlm.corpora.jsonl import prepare
    from dlm.data.pipeline import Batches
    from dlm.data.store import build_or_load
    from dlm.dialogue import pretrained
    from dlm.dialogue.policy import PolicyConfig
    from dlm.dialogue.templates import TemplateConfig, bind
    from dlm.dialogue.tokenizer import CONTROL

    name = "builtin" if Path(folder, "control.json").exists() else "checkpoint"
    tokenizer, policy = pretrained.load(folder), PolicyConfig()
    tokenizer = tokenizer.with_control(CONTROL) if name == "builtin" else tokenizer
    template = bind(TemplateConfig(name), tokenizer, policy)
    few = Path(cache, "few.jsonl")  # so that all of FILE is the training split
    with Path(file).open(encoding="utf-8") as lines:
        few.write_text(lines.readline(), encoding="utf-8")
    start, worked = time.perf_counter(), processor_seconds()
    corpus = prepare({"path": file, "validation_path": str(few)}, Path(cache))
    source, digest = corpus.splits["train"], corpus.digest
    built = time.perf_counter()
    pieces = build_or_load(
        *(source, template, policy, length),
        **{"name": "train", "data_digest": digest, "cache_dir": cache},
    )
    encoded = time.perf_counter()
    batches = Batches(pieces, 1, length)
    batches.row_pieces(0)  # makes the plan
    return {
        "seconds": time.perf_counter() - start,
        "processor seconds": processor_seconds() - worked,
        "seconds to build": built - start,
        "seconds to encode": encoded - built,
        "rows": batches.num_steps(),
        "tokens": pieces.counts.tokens,
        "learned": sum(pieces.counts.supervised.values()),
    }


def prepare_trl(file: str, folder: str, cache: str, length: int, cores: int) -> Figures:
    """TRL's: what its SFTTrainer does with a data set before training, packed by best fit."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = SFTConfig(
        output_dir=cache,
        assistant_only_loss=True,
        max_length=length,
        packing=True,
        packing_strategy="bfd",
        dataset_num_proc=cores if cores > 1 else None,
        use_cpu=True,
        bf16=False,
    )
    trainer = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=False)
    start, worked = time.perf_counter(), processor_seconds()
    read = datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache)
    prepared = SFTTrainer._prepare_dataset(trainer, read, tokenizer, settings, True, None, "train")
    seconds, worked = time.perf_counter() - start, processor_seconds() - worked
    labels = prepared.with_format("numpy")["labels"]
    return {
        "seconds": seconds,
        "processor seconds": worked,
        "rows": len(prepared),
        "tokens": sum(map(sum, prepared["seq_lengths"])),
        "learned": int(sum((row != -100).sum() for row in labels)),
    }


def main() -> None:
    """Prepares the file and prints the figures."""
    side, file, folder, cache, length, cores = sys.argv[1:]
    work = {"dlm": prepare_dlm, "trl": prepare_trl}[side]
    figures = work(file, folder, cache, int(length), int(cores))
    peaks = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({**figures, "memory, MB": max(peaks) * 1024 / 1e6}))


if __name__ == "__main__":
    main()
