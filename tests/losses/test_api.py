"""Finding, levelling and binding losses; every mistake is one line with its remedy."""

from __future__ import annotations

import pytest

from dlm.core.errors import UserError
from dlm.losses import api
from dlm.losses.api import Token
from dlm.losses.binary_cross_entropy import binary_cross_entropy
from dlm.losses.cross_entropy import cross_entropy

IDS = {"yes": 7, "no": 9}


def tuned(logits, targets, aux, *, weight: float, mode: str = "a", steps: int = 1, model=None):
    return logits, weight, mode, steps


def pairs(log_probs, aux):
    return log_probs


def two_passes(params, batch, context, *, model):
    return {}


def odd(z, targets, aux):
    return z


def test_find_by_file_and_by_path():
    assert api.find("cross_entropy") is cross_entropy
    name = "dlm.losses.binary_cross_entropy:binary_cross_entropy"
    assert api.find(name) is binary_cross_entropy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cross_entropi", "no module 'dlm.losses.cross_entropi'"),
        ("nowhere.at_all:loss", "no module 'nowhere.at_all'"),
        ("dlm.losses.api:missing", "has no function 'missing'"),
        ("dlm.losses.api:NORMALISERS", "has no function 'NORMALISERS'"),
    ],
)
def test_find_names_what_is_missing(name, message):
    with pytest.raises(UserError, match=message):
        api.find(name)


def test_an_import_error_inside_a_users_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_loss_module.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        api.find("broken_loss_module:loss")


def test_the_first_parameter_tells_the_level():
    assert [api.level(f) for f in (tuned, pairs, two_passes)] == ["token", "sequence", "objective"]
    assert api.level(api.bind(tuned, {"weight": 1}, IDS.get)) == "token"
    with pytest.raises(UserError, match="'odd': its first parameter is 'z'"):
        api.level(odd)


def test_bind_converts_and_resolves_tokens():
    assert api.bind(tuned, {"weight": 2}, IDS.get)(0, 0, 0) == (0, 2.0, "a", 1)
    bound = api.bind(binary_cross_entropy, {"positive": "yes", "negative": "no"}, IDS.get)
    assert bound.keywords == {"positive": Token(7), "negative": Token(9)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "loss.args.weight: loss 'tuned' needs it"),
        ({"weight": 1.0, "mod": "b"}, "loss.args.mod: .* did you mean 'mode'"),
        ({"weight": 1.0, "model": 3}, "loss.args.model: loss 'tuned' has no such argument"),
        ({"weight": "much"}, "loss.args.weight: 'much' is a str, not a float"),
        ({"weight": True}, "loss.args.weight: True is a bool, not a float"),
        ({"weight": 1.0, "steps": 1.5}, "loss.args.steps: 1.5 is a float, not a int"),
    ],
)
def test_bind_checks_the_signature(args, message):
    with pytest.raises(UserError, match=message):
        api.bind(tuned, args, IDS.get)


def test_a_token_is_given_by_its_text():
    with pytest.raises(UserError, match=r"loss\.args\.positive: 3 is not the text of a token"):
        api.bind(binary_cross_entropy, {"positive": 3, "negative": "no"}, IDS.get)
