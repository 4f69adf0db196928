"""From a table to its runs: their command lines, identities, and what two rows may differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlm.core.errors import UserError
from dlm.core.files import digest, write_json
from dlm.tables.jobs import Job, Resolved, check_difference, expand, slug
from dlm.tables.spec import Column, RunOf, Table, Task, Variant

DEFAULT = {"seed": 0, "train.steps": 100, "train.eval_every": 20, "train.metric": "validation/loss"}
DEFAULT |= {"loss.name": "cross_entropy", "model.attention": "auto"}


def resolve(words: list[str], *, identified: bool = True) -> Resolved:
    """A config in which `loss.name=coupled` changes `train.eval_every` too, and all is text."""
    flags = [word.removeprefix("--config.").partition("=") for word in words[1:]]
    config: dict[str, Any] = {**DEFAULT, **{name: value for name, _, value in flags}}
    if config["loss.name"] == "coupled":
        config["train.eval_every"] = 7
    decisive = {name: value for name, value in config.items() if name != "model.attention"}
    return Resolved(config, digest([words[0], decisive]) if identified else "")


def table(*variants: Variant, **changes: Any) -> Table:
    tasks = (Task("a", "a.py", {"data.rows": 4}), Task("b", "b.py:x=1"))
    columns = (Column("A", "a", "test/bleu"),)
    parts = {"tasks": tasks, "columns": columns, "seeds": (0, 1), **changes}
    return Table("T", "C", variants=variants, **parts)


def test_a_run_for_each_row_task_and_seed(tmp_path):
    rows = table(Variant("plain"), Variant("less", {"loss.name": "focal"}, ("b",)))
    runs = expand(rows, tmp_path, resolve)
    assert [(run.variant.name, run.task.name, run.seed) for run in runs] == [
        *(("plain", task, seed) for task in "ab" for seed in (0, 1)),
        *(("less", "b", seed) for seed in (0, 1)),
    ]
    assert runs[1].words == ("--config=a.py", "--config.data.rows=4", "--config.seed=1")
    assert runs[5].words == ("--config=b.py:x=1", "--config.loss.name=focal", "--config.seed=1")
    for run in runs:
        name = f"{run.variant.name}-{run.task.name}-{run.seed}-{run.identity[:8]}"
        assert run.workdir == tmp_path / "runs" / name
    assert len({run.workdir for run in runs}) == 6


def test_the_quick_settings_are_those_of_every_run(tmp_path):
    """Also of a row that declares another value, which then is no difference to its base."""
    row = Variant("more", {"train.steps": 9, "data.pack": False})
    rows = table(Variant("plain"), row, quick={"train.steps": 3, "data.rows": 2})
    runs = expand(rows, tmp_path, resolve, quick=True)
    assert [run.config["train.steps"] for run in runs] == ["3"] * len(runs)
    assert runs[0].config["data.rows"] == "2"
    whole = expand(rows, tmp_path, resolve)
    assert [run.config["train.steps"] for run in whole[::2]] == [100, 100, "9", "9"]


def test_equal_identities_are_one_run_also_of_an_earlier_table(tmp_path):
    free = Variant("faster", {"model.attention": "xla"})
    first = expand(table(Variant("plain"), free), tmp_path, resolve)
    assert first[0].workdir == first[4].workdir
    first[0].workdir.mkdir(parents=True)
    renamed = expand(table(Variant("another name")), tmp_path, resolve)
    assert renamed[0].workdir == first[0].workdir
    assert renamed[1].workdir.name.startswith("another_name-a-1-")


def test_a_run_that_begins_from_anothers_waits_for_it(tmp_path):
    chain = [Variant("sft"), Variant("dpo", {"init": RunOf("sft")})]
    chain.append(Variant("more", {"init": RunOf("dpo")}))
    rows = table(*chain, seeds=(3,))
    first = {(run.variant.name, run.task.name): run for run in expand(rows, tmp_path, resolve)}
    begun = first["sft", "a"]
    assert [first[row, "a"].identity == "" for row in ("sft", "dpo", "more")] == [False, True, True]
    assert f"--config.init={begun.workdir}" in first["dpo", "a"].words
    begun.workdir.mkdir(parents=True)
    write_json(begun.workdir / "config.json", {"init": "scratch"})
    write_json(begun.workdir / "summary.json", {"test/bleu": 0.5})
    for identity in ("another", begun.identity):
        write_json(begun.workdir / "identity.json", {"identity": identity})
        second = {(r.variant.name, r.task.name): r for r in expand(rows, tmp_path, resolve)}
        known = [row for row in second if second[row].identity]
        assert known == [("sft", "a"), ("sft", "b")] + [("dpo", "a")] * (identity != "another")
    assert second["dpo", "a"].workdir.name.endswith(second["dpo", "a"].identity[:8])


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (
            [Variant("plain"), Variant("x", {"loss.name": "coupled"})],
            "variant 'x' against 'plain', task 'a': train.eval_every differs (20 and 7) and is not "
            "declared; override it",
        ),
        (
            [Variant("y", {"loss.name": "coupled"}), Variant("z", {"loss.name": "focal"})],
            "variant 'z' against 'y', task 'a': train.eval_every differs (7 and 20) and is not",
        ),
        (
            [Variant("plain"), Variant("x", {"loss.name": "cross_entropy"})],
            "variant 'x' against 'plain', task 'a': loss.name is declared and does not differ",
        ),
        (
            [Variant("x", {"train.metric": "test/bleu"})],
            "variant 'x', task 'a': train.metric='test/bleu' would choose the checkpoint by what",
        ),
    ],
)
def test_what_is_refused(tmp_path, variants, message):
    with pytest.raises(UserError) as error:
        expand(table(*variants), tmp_path, resolve)
    assert message in str(error.value)


def test_a_row_that_is_not_asked_for_may_be_impossible_here(tmp_path):
    """It has no identity, so it counts as not run; whatever else is wrong in it waits with it."""
    rows = table(Variant("plain"), Variant("tuned", {"init": "no/checkpoint"}))

    def offline(words: list[str], *, identified: bool = True) -> Resolved:
        if "--config.init=no/checkpoint" in words:
            raise UserError("cannot be fetched")
        return resolve(words, identified=identified)

    plain, tuned = expand(rows, tmp_path, offline, rows={"plain"})[::4]
    assert plain.identity
    assert (tuned.variant.name, tuned.identity, tuned.config) == ("tuned", "", {})
    for asked in (None, {"plain", "tuned"}):
        with pytest.raises(UserError, match=r"'tuned', task 'a': cannot be fetched"):
            expand(rows, tmp_path, offline, rows=asked)


def run(overrides: dict[str, Any], **config: Any) -> Job:
    return Job(Variant("x", overrides), Task("a", "a.py"), 0, (), config, "", Path("x"))


def test_a_difference_may_be_declared_by_its_section_and_on_either_side():
    smoothed = {"loss.args.epsilon": 0.1, "loss.args.kind": "all", "loss.argument": 1}
    plain = run({"seed_words": 1}, **{"loss.argument": 1}, seed_words=1)
    check_difference(run({"loss.args": {}, "seed_words": 1}, **smoothed, seed_words=1), plain)
    check_difference(run({"loss.args": {}}, **smoothed), plain)
    with pytest.raises(UserError, match=r"loss.argument differs \(1 and 2\) and is not declared"):
        check_difference(run({"loss.args": {}}, **{**smoothed, "loss.argument": 2}), plain)


def test_a_name_becomes_part_of_a_file_name():
    assert slug("loss.args.epsilon=0.1, data.rows=8") == "loss.args.epsilon=0.1_data.rows=8"
    assert slug("a/b ../c") == "a_b_.._c"
    assert "/" not in slug(str(Path("/x")))
