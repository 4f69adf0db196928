"""The report of a run: what was learned, in figures, a picture and dialogues side by side."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlm.core.files import write_atomic, write_json
from dlm.dialogue.schema import Dialogue, Message, response_units
from dlm.dialogue.template import message_text
from dlm.evaluation.pages import Page, Table, html_page, markdown_page
from dlm.evaluation.plots import learning_curve

BEFORE = "before/"
LIVE = ("rollout/", "simulated/")
BESIDE = ("commonest/", "gold/")  # other responses than the model's, scored alike
SPEED = ("seconds", "tokens_per_second", "supervised_tokens_per_second", "data_wait")
RUN = tuple(f"train/{what}" for what in SPEED)
# Known metrics, in the order of the tables; others follow by name.
METRICS = (
    "loss",
    "perplexity",
    "token_accuracy",
    "response_accuracy",
    "dialogue_accuracy",
    "call_accuracy",
    "state_accuracy",
    "preference_accuracy",
    "margin",
    "choice_accuracy",
    "choice_accuracy_per_token",
    "exact_match",
    "bleu",
)
NUMBERS = ("loss", "perplexity", "margin", "supervised_tokens", "turns")  # the others are shares
POINTS = ("bleu", "rouge1", "rouge2", "rougeL")  # shares that are written without a percent sign
SPLITS = ("train", "validation", "test")
LONGEST_READ = 400


@dataclass(frozen=True)
class Exchange:
    """One row of a sample: what stands in the corpus and, where it was generated, the model's.

    Attributes:
      who: `user`, `tool`, ..., or the channel of an assistant's message.
      gold: the corpus's text.
      predicted: the model's; None for a message that is only read.
    """

    who: str
    gold: str
    predicted: str | None = None


@dataclass(frozen=True)
class Sample:
    """A dialogue, gold and generated side by side."""

    title: str
    rows: tuple[Exchange, ...]


@dataclass(frozen=True)
class Report:
    """All that a report tells.

    Attributes:
      name: of the run.
      figures: flat `SPLIT/METRIC`, `SPLIT/task:NAME/METRIC`, `SPLIT/channel:NAME/METRIC`, the same
        under `before/` for the model as it started, `rollout/...`, and `train/...` of the run.
      next_command: what to type next.
      counts: split -> name -> count of the data (dialogues, tokens, rejected, ...).
      signatures: metric -> what exactly it measures.
      samples: dialogues to show.
    """

    name: str
    figures: Mapping[str, float]
    next_command: str
    counts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[Sample] = ()


def write(report: Report, workdir: str | Path) -> Path:
    """Writes report.md, report.html, summary.json, signatures.json and plots into a workdir.

    The curve is drawn from the workdir's `metrics.jsonl`. In `summary.json` a figure that is not
    finite is null.

    Returns:
      The path of report.md.
    """
    workdir = Path(workdir)
    picture = learning_curve(workdir / "metrics.jsonl", workdir / "plots" / "learning_curve.png")
    finite = {n: value if math.isfinite(value) else None for n, value in report.figures.items()}
    write_json(workdir / "signatures.json", dict(report.signatures))
    write_json(workdir / "summary.json", finite)
    page = _page(report)
    embedded = ""
    if picture:
        embedded = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    write_atomic(workdir / "report.html", html_page(page, embedded))
    linked = picture.relative_to(workdir).as_posix() if picture else ""
    write_atomic(workdir / "report.md", markdown_page(page, linked))
    return workdir / "report.md"


def side_by_side(
    dialogue: Dialogue, predicted: Mapping[int, Sequence[Message]], title: str = ""
) -> Sample:
    """Lays generated responses beside the gold dialogue they were generated in.

    Args:
      dialogue: the gold dialogue.
      predicted: index of a response unit -> the messages the model wrote from the gold history; a
        unit that is not in it was not generated.
      title: heading; the dialogue's id where it is empty.
    """
    units = response_units(dialogue)
    first = {unit[0]: (index, unit) for index, unit in enumerate(units)}
    inner = {index for unit in units for index in unit[1:]}
    rows: list[Exchange] = []
    for index, message in enumerate(dialogue.messages):
        if index in first:
            number, unit = first[index]
            gold = [dialogue.messages[i] for i in unit]
            rows += _paired(gold, predicted.get(number))
        elif index not in inner:
            rows.append(Exchange(message.role, _shortened(message_text(message))))
    return Sample(title or dialogue.id, tuple(rows))


def _paired(gold: Sequence[Message], predicted: Sequence[Message] | None) -> list[Exchange]:
    """One row a message; a message that the other side lacks stands beside an empty cell."""
    if predicted is None:
        return [Exchange(message.channel or "", message_text(message)) for message in gold]
    ours, theirs = _by_channel(predicted), _by_channel(gold)
    channels = dict.fromkeys([*theirs, *ours])
    return [Exchange(name, theirs.get(name, ""), ours.get(name, "")) for name in channels]


def _by_channel(messages: Sequence[Message]) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    for message in messages:
        texts.setdefault(message.channel or message.role, []).append(message_text(message))
    return {channel: "\n".join(parts) for channel, parts in texts.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_READ else text[:LONGEST_READ].rstrip() + " ..."


def _page(report: Report) -> Page:
    """Sorts the flat figures into tables."""
    after = {name: v for name, v in report.figures.items() if not name.startswith(BEFORE)}
    before = {name[len(BEFORE) :]: v for name, v in report.figures.items() if name not in after}
    apart = (*LIVE, *BESIDE)
    scored = [n for n in {**before, **after} if not n.startswith(apart) and n not in RUN]
    tables = [_split_table(scored, before, after)]
    tables += [_scope_table(scored, before, after, kind) for kind in ("channel", "task")]
    tables.append(_beside_table(after))
    live = {name: value for name, value in after.items() if name.startswith(LIVE)}
    tables.append(_list_table("Live, on the model's own history", "figure", live))
    run = {name.removeprefix("train/"): after[name] for name in RUN if name in after}
    tables.append(_list_table("The run", "figure", run))
    tables.append(_counts_table(report.counts))
    samples = [
        Table(sample.title, ("", "corpus", "model"), tuple(map(_sample_row, sample.rows)))
        for sample in report.samples
    ]
    return Page(
        title=report.name,
        tables=tuple(table for table in tables if table.rows),
        samples=tuple(samples),
        notes=tuple(f"{metric}: {text}" for metric, text in report.signatures.items()),
        next_command=report.next_command,
    )


def _sample_row(exchange: Exchange) -> tuple[str, ...]:
    if exchange.predicted is None:
        return (exchange.who, exchange.gold)
    return (exchange.who, exchange.gold, exchange.predicted)


def _split_table(
    names: Sequence[str], before: Mapping[str, float], after: Mapping[str, float]
) -> Table:
    """Rows: metrics; columns: each split, before and after."""
    own = [name.split("/") for name in names if name.count("/") == 1]
    splits = sorted({split for split, _ in own}, key=lambda split: _place(split, SPLITS))
    metrics = sorted({metric for _, metric in own}, key=lambda metric: _place(metric, METRICS))
    header = ("", *(f"{split} {when}" for split in splits for when in ("before", "after")))
    rows = tuple(
        (_spoken(m), *(_shown(side, f"{s}/{m}") for s in splits for side in (before, after)))
        for m in metrics
    )
    return Table("Before and after", header, rows)


def _scope_table(
    names: Sequence[str], before: Mapping[str, float], after: Mapping[str, float], kind: str
) -> Table:
    """Rows: each task or channel of each split; columns: metrics, `before -> after` in a cell."""
    own = [name.split("/") for name in names if f"/{kind}:" in name]
    scopes = sorted({(_place(split, SPLITS), split, scope) for split, scope, _ in own})
    metrics = sorted({metric for *_, metric in own}, key=lambda metric: _place(metric, METRICS))
    rows = []
    for _, split, scope in scopes:
        names = [f"{split}/{scope}/{metric}" for metric in metrics]
        cells = [(_shown(before, name), _shown(after, name)) for name in names]
        rows.append((split, scope.removeprefix(f"{kind}:"), *map(_arrow, cells)))
    header = ("split", kind, *map(_spoken, metrics))
    return Table(f"By {kind}, before → after", header, tuple(rows))


def _beside_table(figures: Mapping[str, float]) -> Table:
    """Rows: metrics of generated responses; columns: a trivial answer, the model, the gold."""
    commonest, gold = BESIDE
    names = [name.removeprefix(gold) for name in figures if name.startswith(gold)]
    own = [tuple(name.split("/")) for name in names if name.count("/") == 1]
    rows = []
    for split, metric in sorted(own, key=lambda n: (_place(n[0], SPLITS), _place(n[1], METRICS))):
        sides = (_shown(figures, f"{side}{split}/{metric}") for side in (commonest, "", gold))
        rows.append((split, _spoken(metric), *sides))
    header = ("split", "metric", "commonest response", "model", "gold")
    return Table("Generated responses, between a trivial answer and the gold", header, tuple(rows))


def _list_table(title: str, what: str, figures: Mapping[str, float]) -> Table:
    rows = tuple((name.replace("_", " "), _shown(figures, name)) for name in figures)
    return Table(title, (what, "value"), rows)


def _counts_table(counts: Mapping[str, Mapping[str, float]]) -> Table:
    names = list(dict.fromkeys(name for row in counts.values() for name in row))
    rows = tuple(
        (split, *(f"{row[name]:,}" if name in row else "" for name in names))
        for split, row in counts.items()
    )
    return Table("The data", ("split", *map(_spoken, names)), rows)


def _arrow(cells: tuple[str, str]) -> str:
    return " → ".join(cells) if any(cells) else ""


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _shown(figures: Mapping[str, float], name: str) -> str:
    """A share in percent with two decimals, another number with four digits; "" without one."""
    if name not in figures:
        return ""
    value, metric = figures[name], name.rpartition("/")[2]
    if not math.isfinite(value):
        return str(value)
    if metric in POINTS:
        return f"{100 * value:.2f}"
    if metric not in NUMBERS and metric not in SPEED:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
