"""Damaged files of the corpora: each case is a corpus, cut small, with damage in one of its files.

A corpus is read as `prepare` reads it, all splits and the checks of every dialogue, but for the
build, which is left out, and for the counts: those of the release are replaced by what is counted
in the files before they are damaged.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock
from xml.etree import ElementTree

from dlm.corpora import multiwoz, mutual, published, sgd, sgd_head, tables, tfds_store
from dlm.corpora.registry import CORPORA, Card, cards
from dlm.dialogue.schema import Dialogue, response_units
from experiments.fuzzing import Case, mutate_text, mutate_value, mutate_words

SPLITS = ("train", "validation", "test")
FILES = 2  # that are kept where there is one a dialogue


class Source(NamedTuple):
    """What is damaged of a corpus.

    Attributes:
      corpus: its name.
      files: patterns of the files below its folder, and how many records of each are kept.
      options: those that read these files.
    """

    corpus: str
    files: Mapping[str, int]
    options: Mapping[str, Any] = MappingProxyType({})


SOURCES = (
    Source(
        "api_bank",
        {
            "api-bank/data/all_apis.csv": 99,
            "api-bank/lv1*/*/A*-level-[123]-1.jsonl": 40,
            "api-bank/lv3-samples/*H*.txt": 40,
        },
    ),
    Source("babi_dialog", {"*/dialog-babi-task5[td]??*.txt": 60}, {"task": 5}),
    Source("babi_dialog", {"*/dialog-babi-task6[td]??.txt": 60}, {"task": 6}),
    Source("banking77", {"banking_data/t*.csv": 20}),
    Source("camrest676", {"data/CamRest676.json": 4, "db/CamRest.json": 200}),
    Source("clinc150", {"data/data_full.json": 10}),
    Source("clutrr", {"data_089907f8/*.csv": 4}),
    Source("dailydialog", {"*/dialogues_*.txt": 8}),
    Source("deal_or_no_deal", {"negotiate/[tv]*.txt": 12}),
    Source("dream", {"data/*.json": 4}),
    Source("e2e_nlg", {"e2e-dataset/*.csv": 12}),
    Source("kg_small", {"nations/*.tsv": 30}),
    Source(
        "kg_small",
        {"countries/*S1.tsv": 100, "countries/*.txt": 30, "countries/*.nl": 2000},
        {"graph": "countries_S1"},
    ),
    Source("llamafactory_demo", {"data/glaive_toolcall_en_demo.json": 8}),
    Source("llamafactory_demo", {"data/dpo_en_demo.json": 8}, {"set": "dpo"}),
    Source("llamafactory_demo", {"data/kto_en_demo.json": 8}, {"set": "kto"}),
    Source("meld", {"data/MELD/*.csv": 20}),
    Source("meld", {"data/emorynlp/*.csv": 20}, {"set": "emorynlp"}),
    Source("mts_dialog", {"Main-Dataset/*.csv": 4}),
    Source("multiwoz", {"multiwoz/[tv]*.json": 3}, {"version": "2.1"}),
    Source("multiwoz", {"vonCount*/interim/v1/english/*_001.txt": 60}),
    Source("mutual", {f"data/mutual/*/*_{number}.txt": 9 for number in range(1, FILES + 1)}),
    Source("pathquestion", {"PathQuestion/PQ-2H.txt": 20, "PathQuestion/2H-kb.txt": 20}),
    Source("pathquestion", {"WC2014/WC-C.txt": 20, "WC2014/WC2014.txt": 20}, {"set": "WC-C"}),
    Source("restaurants8k", {"*/restaurant8k/train_0.json": 30, "*/restaurant8k/test.json": 10}),
    Source("sgd", {"*/schema.json": 99, "*/dialogues_001.json": 2}),
    Source("sgd_head", {"*/schema.json": 99, "*/dialogues_001.json": 2}),
    Source("webnlg2017", {"*/*/[12]triples/*A*.xml": 3, "*/test/testdata_with_lex.xml": 6}),
    Source("woz2", {"data/woz/woz_*_it.json": 4}, {"language": "it"}),
    Source("xdailydialog", {"data/en_*_human.txt": 8, "data-560899d/*.txt": 8}),
    Source("xdailydialog", {"data/??_*_human.txt": 8}, {"language": "de"}),
    Source("xdailydialog_translation", {"data/??_*_human.txt": 8, "data-560899d/*.txt": 8}),
)


def absent(root: Path) -> list[str]:
    """The corpora of `SOURCES` that are not there."""
    return sorted({s.corpus for s in SOURCES if not (root / cards()[s.corpus].folder).is_dir()})


def shorten(value: Any, kept: int) -> Any:
    """The first items of a list, or of an object, and of each list in it."""
    if not isinstance(value, dict):
        return value[:kept]
    return {
        name: item[:kept] if isinstance(item, list) else item
        for name, item in islice(value.items(), kept)
    }


def cut(data: bytes, suffix: str, kept: int) -> bytes:
    """The first records of a file: rows, entries, JSON values, or lines."""
    if suffix == ".csv":
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        written = io.StringIO(newline="")
        csv.writer(written, lineterminator="\n").writerows(islice(rows, kept + 1))
        return written.getvalue().encode()
    if suffix == ".xml":
        root = ElementTree.fromstring(data)
        for entries in root.iter("entries"):
            entries[:] = entries[:kept]
        return ElementTree.tostring(root, encoding="utf-8")
    lines = data.decode().split("\n")
    comments = [line for line in lines if line.startswith("#")][:1]
    try:
        value = json.loads("\n".join(line for line in lines if not line.startswith("#")))
    except ValueError:
        return "\n".join(lines[:kept]).encode()
    return "\n".join([*comments, json.dumps(shorten(value, kept), ensure_ascii=False)]).encode()


def damage(data: bytes, rng: random.Random) -> bytes:
    """A file with damage to its bytes, or to the words or the JSON value of one line."""
    if rng.random() < 0.4:
        return mutate_text(data, rng)
    lines = data.decode().split("\n")
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        lines[at] = mutate_words(lines[at], rng)
    else:
        lines[at] = json.dumps(mutate_value(value, rng), ensure_ascii=rng.random() < 0.5)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def difference(whole: bytes, damaged: bytes) -> bytes:
    """The damage with some of what stands round it."""
    places = (at for at, pair in enumerate(zip(whole, damaged, strict=False)) if len({*pair}) > 1)
    at = max(0, next(places, 0) - 60)
    return damaged[at : at + 300]


def walk(
    name: str,
    digest: str,
    splits: Mapping[str, Callable[[], Iterable[Dialogue]]],
    data_dir: Path,
    *,
    card: Card,
    rejected: object = (),
) -> list[Dialogue]:
    """Stands in for `tfds_store.build`: the dialogues of all splits, checked."""
    found = []
    for split, read in splits.items():
        dialogues = list(read())
        list(tfds_store.checked_entries(f"{name}/{split}", partial(list, dialogues), card))
        found += dialogues
    return found


@contextmanager
def cut_releases() -> Iterator[None]:
    """Within it corpora are walked, not built, and a release is what is found the first time."""
    known: dict[str, Any] = {}

    def check_counts(
        where: Path | str, found: Mapping[str, int], wanted: Mapping[str, int], card: Card
    ) -> None:
        measured = known.setdefault(f"{where} {wanted}", dict(found))
        tables.check_counts(where, found, measured, card)

    def counted(
        dialogues: Iterable[Dialogue], wanted: object, where: Path, card: Card
    ) -> Iterator[Dialogue]:
        if (key := f"{where} {wanted}") not in known:
            dialogues = list(dialogues)
            known[key] = len(dialogues), sum(len(response_units(d)) for d in dialogues)
        return published.counted(dialogues, known[key], where, card)

    replaced: dict[Callable[..., Any], Callable[..., Any]] = {
        tfds_store.build: walk,
        published.counted: counted,
        tables.check_counts: check_counts,
    }
    one_file = dict.fromkeys(SPLITS, 1)
    texts = {split: names[:1] for split, names in multiwoz.FILES["text"].items()}
    with ExitStack() as stack:
        for module in map(importlib.import_module, CORPORA.values()):
            for old, new in replaced.items():
                if getattr(module, old.__name__, None) is old:
                    stack.enter_context(mock.patch.object(module, old.__name__, new))
        stack.enter_context(mock.patch.dict(mutual.CARD.counts, dict.fromkeys(SPLITS, FILES)))
        stack.enter_context(mock.patch.dict(sgd.FILES, one_file))
        stack.enter_context(mock.patch.dict(sgd_head.SNAPSHOT, dict.fromkeys(SPLITS, (1, 0, None))))
        stack.enter_context(mock.patch.dict(multiwoz.FILES["text"], texts))
        yield


def read_corpus(source: Source, folder: Path) -> list[Dialogue]:
    """All dialogues of a corpus; its graph is read too, where it has one."""
    module = importlib.import_module(CORPORA[source.corpus])
    options = {**source.options, "path": str(folder)}
    dialogues: list[Dialogue] = module.prepare(options, folder)
    if hasattr(module, "triples"):
        module.triples(module.Options(**options))
    return dialogues


def cut_tree(source: Source, root: Path, folder: Path) -> list[Path]:
    """Copies the files of a corpus, cut, into a folder; returns them."""
    home = root / cards()[source.corpus].folder
    written = []
    for pattern, kept in source.files.items():
        for path in sorted(home.glob(pattern)):
            copy = folder / path.relative_to(home)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(cut(path.read_bytes(), path.suffix, kept))
            written.append(copy)
    return written


def damaged_files(cases: int, seed: int, root: Path) -> Iterator[Case]:
    """As many damaged files of the corpora below `root` that are there, each source's in turn."""
    rng = random.Random(seed)
    there = [source for source in SOURCES if source.corpus not in absent(root)]
    with tempfile.TemporaryDirectory() as folder, cut_releases():
        trees = []
        for number, source in enumerate(there):
            tree = Path(folder, str(number))
            files = cut_tree(source, root, tree)
            assert read_corpus(source, tree), f"{source}: no dialogue before there is damage"
            trees.append((source, tree, files))
        for number in range(cases if trees else 0):
            source, tree, files = trees[number % len(trees)]
            path = rng.choice(files)
            whole = path.read_bytes()
            damaged = damage(whole, rng)
            path.write_bytes(damaged)
            record = f"{path.relative_to(tree)}: {difference(whole, damaged)!r}"
            read = partial(read_corpus, source, tree)
            yield Case(source.corpus, record, read, (str(tree), f"{source.corpus}/"))
            path.write_bytes(whole)
