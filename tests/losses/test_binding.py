"""Finding, levelling and binding losses; every mistake is one line with its remedy."""

from __future__ import annotations

import pytest

from dlm.core.errors import UserError
from dlm.losses import api, binding
from dlm.losses.api import Frozen, Losses, Token
from dlm.losses.binary_cross_entropy import binary_cross_entropy
from dlm.losses.cross_entropy import cross_entropy

IDS = {"yes": 7, "no": 9}
KNOWN = binding.Known(IDS.get, {"teacher": "the model"}.get)


def tuned(logits, targets, aux, *, weight: float, mode: str = "a", steps: int = 1, model=None):
    return logits, weight, mode, steps


def pairs(log_probs, aux):
    return log_probs


def two_passes(params, batch, context, *, model):
    return {}


def odd(z, targets, aux):
    return z


def test_find_by_file_and_by_path():
    assert binding.find("cross_entropy") is cross_entropy
    name = "dlm.losses.binary_cross_entropy:binary_cross_entropy"
    assert binding.find(name) is binary_cross_entropy


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
        binding.find(name)


def test_an_import_error_inside_a_users_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_loss_module.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        binding.find("broken_loss_module:loss")


def test_the_first_parameter_tells_the_level():
    assert [api.level(f) for f in (tuned, pairs, two_passes)] == ["token", "sequence", "objective"]
    assert api.level(binding.bind(tuned, {"weight": 1}, KNOWN)) == "token"
    with pytest.raises(UserError, match="'odd': its first parameter is 'z'"):
        api.level(odd)


def test_bind_converts_and_resolves_tokens():
    assert binding.bind(tuned, {"weight": 2}, KNOWN)(0, 0, 0) == (0, 2.0, "a", 1)
    bound = binding.bind(binary_cross_entropy, {"positive": "yes", "negative": "no"}, KNOWN)
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
        binding.bind(tuned, args, KNOWN)


def test_a_token_is_given_by_its_text():
    with pytest.raises(UserError, match=r"loss\.args\.positive: 3 is not the text of a token"):
        binding.bind(binary_cross_entropy, {"positive": 3, "negative": "no"}, KNOWN)


def taught(params, batch, context, *, teacher: Frozen, weight: float = 1.0):
    return {}


def test_a_frozen_run_is_given_by_its_workdir():
    assert binding.bind(taught, {"teacher": "runs/a"}, KNOWN).keywords == {"teacher": "the model"}
    assert binding.frozen_runs(taught, {"teacher": "runs/a", "weight": 2}) == {"teacher": "runs/a"}
    assert binding.frozen_runs(tuned, {"weight": 2}) == {}
    with pytest.raises(UserError, match=r"loss\.args\.teacher: 3 is not the workdir of a run"):
        binding.frozen_runs(taught, {"teacher": 3})


def summed(logits, targets, aux, *, terms: Losses):
    return terms


def test_several_losses_are_bound_each_with_its_own_arguments():
    said = {
        "cross_entropy": 1,
        "focal": {"weight": 0.5, "gamma": 3},
        "binary_cross_entropy": {"weight": 2.0, "positive": "yes", "negative": "no"},
    }
    terms = binding.bind(summed, {"terms": said}, KNOWN)(0, 0, 0)
    assert [(name, weight) for name, weight, _ in terms] == [
        *(("cross_entropy", 1.0), ("focal", 0.5), ("binary_cross_entropy", 2.0))
    ]
    assert terms[1].loss.keywords == {"gamma": 3.0}
    assert terms[2].loss.keywords == {"positive": 7, "negative": 9}
    assert said["focal"] == {"weight": 0.5, "gamma": 3}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, r"loss.args.terms: \{\} is not"),
        (["focal"], r"loss.args.terms: \['focal'\] is not"),
        ({"focall": 1.0}, "loss.args.terms='focall': no module"),
        ({"focal": "much"}, "loss.args.terms.focal.weight: 'much' is a str, not a float"),
        ({"focal": {"gamma": 1.0}}, "loss.args.terms.focal: say its 'weight'"),
        ({"focal": {"weight": 1.0, "gama": 1.0}}, "loss.args.terms.focal.gama: .*'gamma'"),
        ({"r_drop": 1.0}, "loss.args.terms.r_drop: only token losses"),
    ],
)
def test_mistakes_in_terms_are_told(terms, message):
    with pytest.raises(UserError, match=message):
        binding.bind(summed, {"terms": terms}, KNOWN)
