"""A table's files: Markdown and CSV word for word, HTML by its tags, plots by what is drawn."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_table import sample

from dlm.tables import plots
from dlm.tables.layout import Grid, lay_out
from dlm.tables.page import page, sortable
from dlm.tables.render import comma_separated, markdown, write

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


class Reader(HTMLParser):
    """Collects tags with their attributes, texts by their innermost tag; checks that tags close."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def html(results, tmp_path, pictures=()) -> Reader:
    return Reader(page(results, lay_out(results), tmp_path, dict(pictures)))


def test_markdown_word_for_word():
    text = markdown(lay_out(sample(name="a|b")), {"Bars": "plots/bars.png"})
    table = text.split("\n\n")[2].splitlines()
    assert table == [
        "|  | Accuracy ↑ | Time ↓ |",
        "| --- | ---: | ---: |",
        r"| MemN2N<br>Bordes et al. 2017, Table 2 \[V2\] | 96.1 |  |",
        r"| GLMP †<br>Wu et al. 2019 \[R\] | 99.2 | 60 |",
        "| base | 70.0 ± 1.0 (3)<br>69.0, 70.0, 71.0 | 10 ± 1 (3)<br>9, 10, 11 |",
        r"| a\|b | **72.0 ± 2.0 (3)**<br>70.0, 72.0, 74.0 | 10 ± 1 (3)<br>9, 11, 10 |",
        "| broken | " + " | ".join(["failed: the loss is not finite at step…"] * 2) + " |",
        "| partial | 1/3 seeds<br>failed, 72.0, not run | 1/3 seeds<br>failed, 11, not run |",
        "| later | not run | not run |",
        "| elsewhere |  |  |",
    ]
    assert text.startswith("# Losses a\\|b\n\nPer cent.")
    assert "![Bars](plots/bars.png)" in text
    assert "| MemN2N | base | Accuracy | 96.1 | 70.0 ± 1.0 (3) | −26.1 | ± 0.5 | outside |" in text


def test_csv_holds_every_seed_unrounded_and_verdicts():
    rows = list(csv.DictReader(io.StringIO(comma_separated(sample(name="x, y")))))
    ours = {(r["row"], r["column"]): r for r in rows if r["kind"] == "ours"}
    assert len(rows) == 2 * 5 + 3
    base = ours["base", "Accuracy"]
    assert [float(base[f"seed_{s}"]) for s in (3, 5, 7)] == pytest.approx([69, 70, 71])
    # 4.302653 * 1 / sqrt(3) = 2.484138
    found = [float(base[name]) for name in ("mean", "deviation", "mean_low", "mean_high")]
    assert found == pytest.approx([70, 1, 67.515862, 72.484138], abs=1e-6)
    assert (base["published_row"], base["published"], base["verdict"]) == (
        "MemN2N",
        "96.1",
        "outside",
    )
    assert (base["from_published"], base["tolerance"], base["base"]) == ("-26.1", "0.5", "")
    better = ours["x, y", "Accuracy"]
    assert (better["base"], better["p_holm"], better["n"]) == ("base", "0.03", "3")
    assert float(better["difference"]) == pytest.approx(2)
    assert float(better["p"]) == pytest.approx(0.074180, abs=1e-6)
    partial = ours["partial", "Accuracy"]
    assert (partial["mean"], partial["seed_3"], partial["n"]) == ("", "", "")
    assert partial["state"].startswith("failed: error: the loss")
    assert partial["state"].endswith("; done; missing")
    assert {r["quick"] for r in rows} == {"false"}
    assert "true" in comma_separated(sample(quick=True)).splitlines()[1]
    recalled = [r for r in rows if r["row"] == "GLMP"]
    assert [(r["column"], r["mean"], r["mark"]) for r in recalled] == [
        ("Accuracy", "99.2", "R"),
        ("Time", "60.0", "R"),
    ]


def test_the_page_fetches_nothing_and_runs_its_own_script_only(tmp_path):
    read = html(sample(), tmp_path, {"Bars": "data:image/png;base64,AAAA"})
    (script,) = [text for tag, text in read.texts if tag == "script"]
    (policy,) = [m["content"] for m in read.all("meta") if "http-equiv" in m]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert all(image["src"].startswith("data:") for image in read.all("img"))
    assert not any("src" in attributes for attributes in read.all("script"))
    assert not any(name.startswith("on") for _, a in read.tags for name in a)
    assert all(not re.match(r"\w+:|//", a["href"]) for a in read.all("a"))


def test_every_cell_leads_to_its_seeds_commands_and_workdirs(tmp_path, monkeypatch):
    """And to those files of a workdir that are there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base-5" / "predictions").mkdir(parents=True)
    (tmp_path / "runs" / "base-5" / "config.json").write_text("{}")
    read = html(sample(), tmp_path / "tables")
    places = {a["id"] for a in read.all("details")}
    linked = [a["href"][1:] for a in read.all("a") if a["href"].startswith("#")]
    assert sorted(linked) == sorted(places)
    assert len(linked) == 10  # five rows with two cells each; the sixth has none
    hrefs = {unquote(a["href"]) for a in read.all("a")}
    assert os.path.relpath("runs/base-5/config.json", tmp_path / "tables") in hrefs
    assert os.path.relpath("runs/base-5/predictions", tmp_path / "tables") in hrefs
    assert not [href for href in hrefs if href.endswith(("log.txt", "report.html"))]
    commands = [text for tag, text in read.texts if tag == "code"]
    assert commands[:3] == list(sample().cells["base", "Accuracy"].commands)


def test_cells_are_sorted_by_number_and_empty_ones_have_no_key(tmp_path):
    keys = [a["data-key"] for a in html(sample(), tmp_path).all("td") if "data-key" in a]
    assert [float(key) for key in keys[1::3][:4]] == pytest.approx([96.1, 99.2, 70, 72])
    assert keys[1::3][4:8] == ["", "", "", ""]
    grid = Reader(sortable(Grid("t", ("a",), (("−0.5 to +1",), ("< 0.001",), ("–",), ("x",)))))
    assert [a["data-key"] for a in grid.all("td")] == ["-0.5", "0.001", "", "x"]


@settings(max_examples=40)
@given(NAMES, NAMES)
def test_names_are_text_in_every_format(name, note):
    """Whatever stands in a name, it is shown and never becomes markup."""
    if not name.strip() or name in ("base", "broken", "partial", "later", "elsewhere"):
        return
    results = sample(name=name, note=note)
    read = Reader(page(results, lay_out(results), Path("tables"), {}))
    assert ("td", name) in read.texts
    assert any(tag == "summary" and text.startswith(f"{name}, ") for tag, text in read.texts)
    rows = list(csv.DictReader(io.StringIO(comma_separated(results))))
    assert name in {row["row"] for row in rows}
    lines = markdown(lay_out(results), {}).splitlines()
    assert sum(line.startswith("| base | 70.0") for line in lines) == 1


def logged(folder, values) -> None:
    folder.mkdir(parents=True)
    rows = [
        {"step": step, "updates": step, "validation/response_accuracy": value}
        for step, value in values.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_curve_is_over_the_updates_that_all_seeds_have():
    logs = [
        [{"step": 9, "updates": 0, "x": 1.0}, {"step": 10, "updates": 10, "x": 3.0}],
        [{"step": 0, "x": 2.0}, {"step": 10, "x": 5.0}, {"step": 20, "x": 9.0}],
        [{"step": 0, "x": 3.0}, {"step": 5, "x": None}, {"step": 10, "x": 4.0}],
    ]
    curve = plots.over_seeds(logs, "x")
    assert [(at, s.n, s.mean, s.deviation) for at, s in curve] == [
        (0, 3, 2.0, 1.0),
        (10, 3, 4.0, 1.0),
    ]
    assert plots.over_seeds([], "x") == []


def test_all_files_are_written_and_a_quick_one_is_marked_in_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (3, 5, 7):
        logged(tmp_path / f"runs/base-{seed}", {0: 0.1, 10: 0.2 + seed / 100})
    odd = sample(quick=True, name=r"$\alpha$ 中 & <b>")
    path = write(odd, tmp_path / "tables")
    assert path == tmp_path / "tables" / "table.md"
    written = {p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*") if p.is_file()}
    pictures = {
        f"plots/{name}.{kind}" for name in ("bars", "curves", "tradeoff") for kind in ("png", "pdf")
    }
    assert written == {"table.md", "table.tex", "table.csv", "table.html", *pictures}
    for name in ("table.md", "table.tex", "table.html"):
        assert "(quick)" in (path.parent / name).read_text(encoding="utf-8")
    assert (path.parent / "plots/bars.pdf").read_bytes().startswith(b"%PDF")


def test_the_same_results_give_the_same_bytes(tmp_path):
    results = sample()
    results = replace(results, table=replace(results.table, tradeoff=()))
    for name in ("a", "b"):
        write(results, tmp_path / name)
    files = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert [p.name for p in files if p.suffix == ".pdf"] == ["bars.pdf"]
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def drawn(axes) -> list[tuple[list[float], list[float]]]:
    return [
        (list(map(float, x)), list(map(float, y)))
        for x, y in (line.get_data() for line in axes.lines)
    ]


def test_bars_show_interval_mean_and_seeds():
    axes = plots.bars(sample()).axes[0]
    lines = drawn(axes)
    # rows 0 and 1 are published; the base row is the third
    assert ([96.1], [0.0]) in lines
    interval = [xs for xs, ys in lines if ys == [2.0, 2.0] and len(xs) == 2]
    assert interval[0] == pytest.approx([67.515862, 72.484138], abs=1e-6)
    assert any(ys == [2.0] * 3 and xs == pytest.approx([69, 70, 71]) for xs, ys in lines)
    partial = [xs for xs, ys in lines if set(ys) == {5.0}]
    assert partial == [[pytest.approx(72)]]  # a dot, and neither bar nor interval
    assert [bar.get_x() for bar in axes.patches] == [0.0, 0.0]  # no bar is cut off
    assert axes.get_xlim()[0] == 0


def test_dots_in_place_of_bars_where_all_figures_lie_close_together():
    results = sample()
    close = replace(results.table, published=())
    axes = plots.bars(replace(results, table=close, verdicts={})).axes[0]
    assert not axes.patches
    assert axes.get_xlim()[0] > 60


def test_the_tradeoff_is_drawn_where_it_is_declared():
    figure = plots.tradeoff(sample())
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "Time (lower is better)",
        "Accuracy (higher is better)",
    )
    points = [tuple(p) for c in axes.collections for p in c.get_offsets().tolist()]
    assert (60.0, 99.2) in points  # published
    assert any(p == pytest.approx((10, 72)) for p in points)
    table = replace(sample().table, tradeoff=())
    assert plots.tradeoff(replace(sample(), table=table)) is None


def test_nothing_is_drawn_of_runs_that_are_not_there(tmp_path):
    results = sample()
    empty = replace(results, cells={k: c for k, c in results.cells.items() if k[0] == "later"})
    assert plots.draw(empty, tmp_path) == {}
