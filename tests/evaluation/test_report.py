"""The report of a run, and its picture."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from dlm.dialogue.schema import Dialogue, Message
from dlm.evaluation.pages import markdown_text
from dlm.evaluation.plots import learning_curve
from dlm.evaluation.report import Exchange, Report, Sample, side_by_side, write

FIGURES = {
    "before/test/loss": 6.907,
    "test/loss": 0.0123,
    "before/test/response_accuracy": 0.0,
    "test/response_accuracy": 0.99174,
    "before/test/perplexity": math.inf,
    "test/bleu": 0.875,
    "test_oov/loss": 0.5,
    "before/test/channel:call/token_accuracy": 0.01,
    "test/channel:call/token_accuracy": 1.0,
    "test/task:book|ing/loss": 0.25,
    "rollout/test/success": 0.5,
    "train/seconds": 1140.25,
    "gold/test/bleu": 1.0,
    "commonest/test/bleu": 0.125,
    "gold/test/task:book|ing/bleu": 1.0,
}
SAMPLE = Sample("d-1", (Exchange("user", "hi\n<b>|*"), Exchange("reply", "yes", "no & <i>")))


class Reader(HTMLParser):
    """Collects tags, attributes and text; checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def workdir(tmp_path):
    rows = [{"step": s, "updates": s, "train/loss": 5 / (s + 1)} for s in range(0, 50, 5)]
    rows += [{"step": s, "updates": s, "validation/loss": 6 / (s + 1)} for s in (0, 25, 50)]
    rows.append({"step": 51, "updates": 50, "train/loss": None})
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["step"]))
    (tmp_path / "metrics.jsonl").write_text(lines)
    report = Report(
        name="babi <u>5",
        figures=FIGURES,
        next_command="python run.py chat --workdir='<u> & b'",
        counts={"train": {"dialogues": 1000, "rejected <u>": 2}, "test": {"dialogues": 7}},
        signatures={"bleu": "nrefs:1|case:mixed"},
        samples=[SAMPLE],
    )
    write(report, tmp_path)
    return tmp_path


def markdown_rows(workdir) -> list[list[str]]:
    lines = (workdir / "report.md").read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row[1:-1]] for row in rows]


def test_markdown_shows_before_and_after(workdir):
    """Metrics by split, before beside after; a missing figure is an empty cell."""
    rows = markdown_rows(workdir)
    assert rows[0] == ["", "test before", "test after", "test_oov before", "test_oov after"]
    assert ["loss", "6.907", "0.0123", "", "0.5"] in rows
    assert ["response accuracy", "0.00 %", "99.17 %", "", ""] in rows
    assert ["perplexity", "inf", "", "", ""] in rows
    assert ["bleu", "", "87.50", "", ""] in rows
    assert ["test", "call", "1.00 % → 100.00 %"] in rows
    assert ["test", "book\\|ing", "→ 0.25"] in rows
    assert ["rollout/test/success", "50.00 %"] in rows
    assert ["seconds", "1,140"] in rows
    assert ["test", "bleu", "12.50", "87.50", "100.00"] in rows
    assert ["train", "1,000", "2"] in rows
    assert ["test", "7", ""] in rows


def test_markdown_has_samples_curve_and_next_command(workdir):
    text = (workdir / "report.md").read_text()
    assert ["user", "hi<br>&lt;b&gt;\\|\\*", ""] in markdown_rows(workdir)
    assert ["reply", "yes", "✗ no &amp; &lt;i&gt;"] in markdown_rows(workdir)
    assert "![loss against updates](plots/learning_curve.png)" in text
    assert "bleu: nrefs:1\\|case:mixed" in text
    assert text.endswith("    python run.py chat --workdir='<u> & b'\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p < 0.001", "p < 0.001"),
        ("<b> and </b>", "&lt;b&gt; and &lt;/b&gt;"),
        ("<\nb>", "&lt;<br>b&gt;"),
        ("&lt; is a sign", "&amp;lt; is a sign"),
    ],
)
def test_markdown_escapes_what_could_begin_a_tag(text, shown):
    assert markdown_text(text) == shown


def test_html_is_whole_and_asks_for_nothing_outside(workdir):
    """Tags close, no script, and the only source is the picture's data URI."""
    page = (workdir / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    sources = [a[key] for _, a in reader.tags for key in ("src", "href") if key in a]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert {"script", "link", "iframe", "b", "i"}.isdisjoint(tag for tag, _ in reader.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_html_shows_text_as_text(workdir):
    """What a model or a user wrote is escaped, in titles, cells and commands alike."""
    page = (workdir / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    for text in ("babi <u>5", "hi\n<b>|*", "✗ no & <i>", "python run.py chat --workdir='<u> & b'"):
        assert text in reader.text
    assert "<b>" not in page
    assert "<u>" not in page


def test_summary_is_flat_and_strict_json(workdir):
    """Every figure under its own name; what is not finite is null."""
    summary = json.loads((workdir / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary == {**FIGURES, "before/test/perplexity": None}


def test_a_run_without_losses_has_no_picture(tmp_path):
    """No metrics log: the report stands, and no curve is promised."""
    write(Report("r", {"test/loss": 1.0}, "python run.py"), tmp_path)
    assert "learning_curve" not in (tmp_path / "report.md").read_text()
    assert "<img" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "plots").exists()


def test_curve_is_a_picture_of_the_log(workdir, tmp_path):
    """A PNG of stated size; other losses give another picture, the same ones the same bytes."""
    first = (workdir / "plots/learning_curve.png").read_bytes()
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(first[16:20]) == 960
    assert learning_curve(workdir / "metrics.jsonl", tmp_path / "b.png") == tmp_path / "b.png"
    assert (tmp_path / "b.png").read_bytes() == first
    with (workdir / "metrics.jsonl").open("a") as log:
        log.write('{"step": 52, "updates": 52, "validation/loss": 3.0}\n')
    learning_curve(workdir / "metrics.jsonl", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes() != first


def test_one_flat_point_can_be_drawn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "updates": 0, "validation/loss": 0.0}\n')
    assert learning_curve(tmp_path / "metrics.jsonl", tmp_path / "a.png") == tmp_path / "a.png"


def test_side_by_side_pairs_channels():
    """Read messages stand alone; generated ones stand beside gold, also where one side has none."""
    dialogue = Dialogue(
        "d",
        (
            Message("user", "hi"),
            Message("assistant", "x=1", "state"),
            Message("assistant", channel="call", name="find", arguments={"x": 1}),
            Message("tool", "f" * 500, name="find"),
            Message("assistant", "here", "reply"),
            Message("user", "bye"),
            Message("assistant", "bye", "reply"),
        ),
    )
    wrote = {
        0: (Message("assistant", "x=2", "state"), Message("assistant", "what?", "reply")),
        1: (),
    }
    sample = side_by_side(dialogue, wrote)
    call = '{"name": "find", "arguments": {"x": 1}}'
    assert sample.title == "d"
    assert sample.rows == (
        Exchange("user", "hi"),
        Exchange("state", "x=1", "x=2"),
        Exchange("call", call, ""),
        Exchange("reply", "", "what?"),
        Exchange("tool", "find\n" + "f" * 395 + " ..."),
        Exchange("reply", "here", ""),
        Exchange("user", "bye"),
        Exchange("reply", "bye"),
    )
