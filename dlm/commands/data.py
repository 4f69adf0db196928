"""Shows a corpus as the model will see it, and what it holds.

    python run.py data --config=FILE[:ARG] [--split=NAME] [--rows=2] [--audit] [--workdir=DIR]
    python run.py data --clean-cache [--config=FILE[:ARG]]
    python run.py data --list

Prints the first rows of the first batch (learned tokens marked) of a split (that of training, where
there is one), a table of counts for each split, a histogram of lengths, licences, how many
dialogues stand in two splits, and where the encoded tokens are kept; `plots/lengths.png` in the
workdir shows the lengths. --audit writes the rows to `audit.html` in the workdir, every token
painted with its weight, channel, segment and why it is learned or not. --clean-cache deletes all
encoded tokens (corpora are kept). --list shows all corpora: kind of work, dialogues, licence, whom
to cite, whether the files are under DLM_DATA_DIR, and what of the published corpus is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from dlm.commands.build import Unclaimed
from dlm.commands.setup import Setup, cache_dir, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.core.files import write_atomic
from dlm.corpora import registry
from dlm.corpora.notices import notices
from dlm.corpora.published import absent
from dlm.corpora.registry import Card
from dlm.data import audit, store
from dlm.data.audit_page import audit_page, audit_rows
from dlm.data.pipeline import Batches, DataConfig
from dlm.dialogue.apart import Apart, count_apart
from dlm.dialogue.chat_template import ChatTemplate

CLEAN = "--clean-cache"
AUDIT = "--audit"
SAMPLE = 500  # dialogues whose ids are compared with those of one text
LIST = "--list"


def run(argv: list[str]) -> int:
    """The verb `data`."""
    if LIST in argv:
        if argv != [LIST]:
            raise UserError(f"data {LIST} stands alone; it takes no other flag")
        print(list_corpora(registry.cards()))
        return 0
    if CLEAN in argv:
        return clean([word for word in argv if word != CLEAN])
    split, rest = take_flag([word for word in argv if word != AUDIT], "split")
    rows, rest = take_flag(rest, "rows")
    options = parse_options(rest, saved=True)
    if options.rest:
        raise UserError(f"data does not know {options.rest[0]!r}; see python run.py data --help")
    if rows is not None and not rows.isdecimal():
        raise UserError(f"--rows={rows} is no number of rows")
    named = any(word.partition("=")[0] == "--config" for word in rest)
    setup = Unclaimed(options) if named else Setup(options)  # the run in its workdir is another
    show(setup, split or setup.first_split, int(rows or 2), page=AUDIT in argv)
    return 0


def show(setup: Setup, split: str, rows: int, *, page: bool) -> None:
    """Prints rows of a split, counts of all splits, lengths, and the cache; writes a `page`."""
    data = setup.settings.data
    setup.split(split)  # a misspelt one is refused before anything is encoded
    pieces = {name: setup.pieces(name, evaluation=name != "train") for name in setup.corpus.splits}
    batches = setup.batches(pieces[split], shuffle=split == "train")
    batch = next(batches.iterate(0, 1))
    first = jax.tree.map(lambda array: array[:rows], batch)
    names = pieces[split].task_names
    print(audit.show_batch(first, setup.tokenizer, task_names=names, ansi=sys.stdout.isatty()))
    counts = audit.counts_table(pieces, data.length)
    print(f"\n{counts}\n\nlengths of {split}, in tokens:")
    print(audit.histogram(pieces[split].lengths, data.length))
    picture = setup.workdir / "plots" / "lengths.png"
    audit.plot_lengths(pieces, data.length, picture)
    megabytes = store.size(setup.cache) / 1e6
    print(f"\npicture: {picture}\nencoded tokens of all runs: {megabytes:,.1f} MB in {setup.cache}")
    print("\n".join(notices(setup.corpus)))
    if batches.draws:
        print(batches.draws.describe())
    if isinstance(setup.template, ChatTemplate):
        source = setup.split(split)
        sample = [source[i] for i in range(min(SAMPLE, len(source)))]
        print(apart_line(count_apart(setup.template, sample), split))
    if page:
        print(f"every token: {write_page(setup, split, batches, counts, rows)}")
    for corpus in setup.corpus.corpora.values():
        if corpus.rejected is not None:
            print(f"records refused, with reasons: {corpus.rejected}")


def apart_line(apart: Apart, split: str) -> str:
    """Says how many of the messages that were looked at have other ids as one text."""
    return (
        f"{apart.other_messages:,} of {apart.messages:,} messages of {split} tokenise otherwise "
        f"than as one text ({apart.other_tokens:,} of {apart.tokens:,} tokens): texts are encoded "
        "apart from control tokens"
    )


def write_page(setup: Setup, split: str, batches: Batches, counts: str, rows: int) -> Path:
    """Writes the rows of a split, token by token, to `audit.html`; returns where."""
    policy = setup.settings.policy
    policy = policy if split == "train" else policy.scored()
    painted = audit_rows(batches, setup.split(split), setup.tokenizer, policy, rows)
    path = setup.workdir / "audit.html"
    title = f"{setup.settings.data.name}/{split}, token by token"
    write_atomic(path, audit_page(title, painted, counts))
    return path


def clean(argv: list[str]) -> int:
    """Deletes the encoded tokens of the cache that the config (or none) names."""
    options = parse_options(argv) if argv else None
    if options and options.rest:
        raise UserError(f"data {CLEAN} does not know {options.rest[0]!r}")
    data = options.settings.data if options else DataConfig()
    freed = store.clean(cache_dir(data))
    print(f"deleted {freed / 1e6:,.1f} MB of encoded tokens in {cache_dir(data)}")
    return 0


def list_corpora(cards: Mapping[str, Card]) -> str:
    """A table of all corpora, two or more lines each; sizes under the default options."""
    heads = ("name", "task", "dialogues", "files", "licence")
    rows = [
        (name, card.task, _sizes(card), _files(card), card.licence) for name, card in cards.items()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [_line(heads, widths)]
    for row, card in zip(rows, cards.values(), strict=True):
        lines.append(_line(row, widths))
        notes = {"cite": card.citation, "missing": card.missing}
        if card.folder and absent(card):
            notes["absent"] = f"{absent(card)}; {card.remedy}"
        lines += [f"    {word}: {note}" for word, note in notes.items() if note]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(str.ljust, cells, widths)).rstrip()


def _sizes(card: Card) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in card.counts.items()) or "yours"


def _files(card: Card) -> str:
    return ("absent" if absent(card) else "there") if card.folder else "none needed"
