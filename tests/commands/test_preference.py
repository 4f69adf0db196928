"""Preferences through the command line: tuned on chosen endings, then by DPO beside that run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from small_run import flags

from dlm.commands.measure import Measure
from dlm.commands.reference import REFERENCE
from dlm.commands.setup import Setup, parse_options
from dlm.commands.train import train
from dlm.core.errors import UserError
from dlm.core.files import read_json
from dlm.training import loop
from dlm.training.log import METRICS_FILE, read_metrics

pytestmark = pytest.mark.slow
COLOURS = ("red", "green", "blue", "black", "white", "grey")


def reply(text):
    return [{"role": "assistant", "content": text}]


def pair(number):
    one, other = COLOURS[number % 6], COLOURS[(number + 1 + number // 6) % 6]
    asked = [{"role": "user", "content": f"not {one} but {other}"}]
    return {"messages": asked, "chosen": reply(other), "rejected": reply(f"{one} {one}")}


def choice(number):
    asked = [{"role": "user", "content": COLOURS[number % 6]}]
    candidates = [COLOURS[(number + i) % 6] for i in range(3)]
    return {"messages": asked, "candidates": candidates, "answer": 0}


def options(folder, records, **changes):
    folder.mkdir(exist_ok=True)
    path = folder / "endings.jsonl"
    path.write_text("".join(f"{json.dumps({'id': str(i), **r})}\n" for i, r in enumerate(records)))
    words = {
        "data.path": path,
        "data.validation_path": path,
        "data.length": 64,
        "model.num_layers": 1,
        "train.steps": 12,
        "train.log_every": 1,
        "eval.dialogues": 2,
        "eval.samples": 1,
        **changes,
    }
    return parse_options(flags(folder, **words))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run by cross-entropy on a corpus of pairs, and its figures."""
    folder = tmp_path_factory.mktemp("sft")
    figures = train(options(folder, map(pair, range(24))))
    return folder / "run", figures


def test_a_token_loss_learns_the_chosen_endings(tuned):
    """Also of a run that compares nothing the pairs are scored, before and after."""
    workdir, figures = tuned
    assert figures["validation/loss"] < figures["before/validation/loss"]
    for name in ("margin", "preference_accuracy"):
        assert {f"validation/{name}", f"before/validation/{name}"} <= figures.keys()
    (line, *_) = (workdir / "predictions" / "validation.jsonl").read_text().splitlines()
    assert json.loads(line)["gold"][0]["content"] == "green"
    assert not (workdir / REFERENCE).exists()
    assert (
        "log probabilities of all that an ending has to learn"
        in (workdir / "report.md").read_text()
    )


def test_dpo_beside_the_run_it_starts_from(tuned, tmp_path, monkeypatch):
    """The first loss is log 2; the margin rises; a resumed run has the reference it had."""
    changes = {"loss.name": "dpo", "init": tuned[0], "train.save_every": 4, "model.dropout": 0.0}
    given = options(tmp_path, map(pair, range(24)), **changes)
    setup = Setup(given)
    run, stopped = loop.run, []

    class Stop(Exception):
        pass

    def until_saved(step, state, *args, **kwargs):
        def counted(*inner, **more):
            stopped.append(1)
            if len(stopped) == 7:
                raise Stop
            return step(*inner, **more)

        return run(counted, state, *args, **kwargs)

    monkeypatch.setattr(loop, "run", until_saved)
    with pytest.raises(Stop):
        train(given)
    written = np.array(read_json(given.workdir / REFERENCE)["log_probs"], np.float32)
    pieces = setup.pieces("train", evaluation=False)
    on_the_spot = Measure(setup).log_probs(setup.initial_params(), pieces)
    np.testing.assert_allclose(written, on_the_spot, atol=1e-5)
    assert written.shape == (48,)
    assert (written < 0).all()

    monkeypatch.setattr(loop, "run", run)
    made, whole = [], Measure.log_probs
    monkeypatch.setattr(
        Measure, "log_probs", lambda *args: made.append(args[-1].name) or whole(*args)
    )
    figures = train(given)
    assert "train" not in made
    first, *_ = (r for r in read_metrics(given.workdir / METRICS_FILE) if "train/loss" in r)
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(first["train/reward_margin"]) < 1e-4
    assert figures["validation/margin"] > figures["before/validation/margin"]
    before = tuned[1]["validation/margin"]
    assert figures["before/validation/margin"] == pytest.approx(before, rel=1e-5)


def test_a_damaged_reference_is_made_again(tuned, tmp_path, capsys):
    changes = {"loss.name": "dpo", "init": tuned[0], "train.steps": 2}
    given = options(tmp_path, map(pair, range(6)), **changes)
    train(given)
    path = given.workdir / REFERENCE
    whole = path.read_text()
    path.write_text(whole.replace("-", "-1", 1))  # the first log probability
    capsys.readouterr()
    train(given)
    assert f"{path}: damaged" in capsys.readouterr().out
    assert path.read_text() == whole


def test_candidates_are_learned_and_scored(tmp_path):
    """A choice corpus through the sequence loss, unpacked and in micro-batches."""
    changes = {"loss.name": "candidates", "data.pack": False, "train.accumulate": 2}
    changes |= {"train.steps": 30, "optimizer.learning_rate": 0.01}
    figures = train(options(tmp_path, map(choice, range(12)), **changes))
    assert figures["validation/choice_accuracy"] > figures["before/validation/choice_accuracy"]
    assert "validation/margin" not in figures


def test_a_pair_loss_refuses_more_than_two(tmp_path):
    message = "loss 'dpo' compares two endings, dialogue 0 has 3; take loss.name='candidates'"
    with pytest.raises(UserError, match=message):
        train(options(tmp_path, map(choice, range(4)), **{"loss.name": "dpo"}))


def test_a_corpus_without_endings_is_refused_by_name(tmp_path):
    plain = [{"messages": [{"role": "user", "content": "a"}, *reply("b")]}] * 2
    with pytest.raises(UserError, match="2 rejected: nothing to compare"):
        train(options(tmp_path, plain, **{"loss.name": "dpo"}))
