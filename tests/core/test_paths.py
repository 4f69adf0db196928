from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.core import paths
from dlm.core.errors import UserError

TREE = {"embedding": {"tokens": 1}, "layers": {"0": {"bias": 2, "kernel": 3}, "1": {"kernel": 5}}}
FLAT = {"embedding/tokens": 1, "layers/0/bias": 2, "layers/0/kernel": 3, "layers/1/kernel": 5}

names = st.text("abc01", min_size=1, max_size=3)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3)
).filter(lambda tree: isinstance(tree, dict))


def test_paths_join_keys():
    assert paths.flatten(TREE) == FLAT
    assert list(paths.flatten(TREE)) == list(FLAT)


@given(trees)
def test_unflatten_inverts_flatten(tree):
    assert paths.unflatten(paths.flatten(tree)) == tree


@given(trees, st.data())
def test_merge_inverts_split(tree, data):
    mask = {path: data.draw(st.booleans()) for path in paths.flatten(tree)}
    selected, rest = paths.split(tree, mask)
    assert paths.flatten(selected).keys() == {path for path, chosen in mask.items() if chosen}
    assert paths.merge(selected, rest) == tree
    assert paths.merge(rest, selected) == tree


@pytest.mark.parametrize("key", ["a/b", "", 3])
def test_a_key_that_cannot_be_read_back_is_refused(key):
    with pytest.raises(ValueError, match="cannot be part of a path"):
        paths.flatten({key: 1})


@pytest.mark.parametrize("flat", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}])
def test_a_leaf_that_is_also_a_sub_tree_is_refused(flat):
    with pytest.raises(ValueError, match="a leaf and a sub-tree at once"):
        paths.unflatten(flat)


def test_trees_that_share_a_leaf_do_not_merge():
    with pytest.raises(ValueError, match="both trees hold 'a/b'"):
        paths.merge({"a": {"b": 1}}, {"a": {"b": 2}})


def test_the_first_matching_rule_wins():
    rules = [("layers/0/.*", "first"), ("layers/.*", "second"), (".*", "third")]
    assert paths.resolve(rules, FLAT, name="decay") == {
        "embedding/tokens": "third",
        "layers/0/bias": "first",
        "layers/0/kernel": "first",
        "layers/1/kernel": "second",
    }


def test_rules_come_before_defaults_and_only_defaults_may_match_nothing():
    resolved = paths.resolve(
        [(".*/bias", 1)], FLAT, name="decay", defaults=[("head/.*", 3), (".*", 2)]
    )
    assert resolved["layers/0/bias"] == 1
    assert resolved["layers/0/kernel"] == 2


def test_a_rule_matches_whole_paths_only():
    assert paths.resolve([("a/b", 1), (".*", 2)], ["a/b", "a/bc"], name="decay") == {
        "a/b": 1,
        "a/bc": 2,
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("layers", True), (".*", False)], "decay: the rule 'layers' matches none of 4 paths"),
        ([("layers/.*", True)], "decay: no rule covers 'embedding/tokens'"),
        ([("layers/(", True)], r"decay: 'layers/\(' is not a regular expression"),
    ],
    ids=["a rule matches a whole path or nothing", "uncovered", "bad regex"],
)
def test_a_mistaken_rule_is_named(rules, message):
    with pytest.raises(UserError, match=message):
        paths.resolve(rules, FLAT, name="decay")


def test_the_table_folds_layers_and_counts_parameters():
    resolved = paths.resolve([(".*/bias", False), (".*", True)], FLAT, name="decay")
    sizes = {"embedding/tokens": 7000, "layers/0/bias": 11, "layers/0/kernel": 13}
    rows = [line.split() for line in paths.describe(resolved, sizes | {"layers/1/kernel": 17})
            .splitlines()]  # fmt: skip
    assert rows == [
        ["value", "leaves", "parameters", "path"],
        ["True", "1", "7,000", "embedding/tokens"],
        ["False", "1", "11", "layers/*/bias"],
        ["True", "2", "30", "layers/*/kernel"],
        ["True", "3", "7,030", "(all)"],
        ["False", "1", "11", "(all)"],
    ]
