"""States and acts: the line by hand, back again whatever is in it, and what is refused."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from dlm.dialogue.slots import Act, parse_acts, parse_state, spell_acts, spell_state

TEXT = st.text(alphabet="ab =;,()\\\nné", max_size=6).map(str.strip)
NAME = TEXT.filter(bool)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({}, ""),
        ({"food": "chinese", "area": "dontcare"}, "area=dontcare; food=chinese"),
        ({"price range": " cheap"}, "price range=cheap"),
        ({"name": "a=b; c", "x;=": "(d, e)"}, r"name=a=b\; c; x\;\==(d, e)"),
        ({"note": "two\nlines \\n", "none": ""}, "none=; note=two\\nlines \\\\n"),
    ],
)
def test_a_state_by_hand(state, line):
    assert spell_state(state) == line
    assert parse_state(line) == {slot: value.strip() for slot, value in state.items()}


@pytest.mark.parametrize(
    ("acts", "line"),
    [
        ((), ""),
        ((Act("bye"),), "bye"),
        (
            (
                Act("inform", (("food", "chinese"), ("area", "east"))),
                Act("request", (("area", None),)),
            ),
            "inform(food=chinese, area=east); request(area)",
        ),
        (
            (Act("offer", (("name", "Rosa (bar), 2; x=y"), ("fee", ""))), Act("offer", ())),
            r"offer(name=Rosa \(bar\)\, 2\; x=y, fee=); offer",
        ),
    ],
)
def test_acts_by_hand(acts, line):
    assert spell_acts(acts) == line
    assert parse_acts(line) == acts


@hypothesis.given(st.dictionaries(TEXT, TEXT, max_size=3))
def test_a_state_comes_back(state):
    line = spell_state(state)
    assert parse_state(line) == state
    assert "\n" not in line
    assert spell_state(dict(reversed(state.items()))) == line


@hypothesis.given(
    st.lists(
        st.builds(Act, NAME, st.lists(st.tuples(NAME, st.none() | TEXT), max_size=3).map(tuple)),
        max_size=3,
    ).map(tuple)
)
def test_acts_come_back(acts):
    line = spell_acts(acts)
    assert parse_acts(line) == acts
    assert "\n" not in line


def test_what_a_model_may_write_is_read_with_other_spaces():
    assert parse_state(" food=chinese;area = east ") == {"area": "east", "food": "chinese"}
    assert parse_acts("request( area ) ;bye ") == (Act("request", (("area", None),)), Act("bye"))


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (parse_state, "a=1; b", "'b' is no slot=value"),
        (parse_state, "a=1;", "'' is no slot=value"),
        (parse_state, "a=1; a=1", "'a=1' names a slot that stood before"),
        (parse_acts, "inform(a", r"act 'inform\(a' is no act"),
        (parse_acts, "inform(a)b", "is no act"),
        (parse_acts, "inform(a)(b)", "is no act"),
        (parse_acts, "bye; (a)", r"act '\(a\)' is no act"),
        (parse_acts, r"inform(a\)", "is no act"),
    ],
)
def test_what_is_no_state_or_act_is_refused(read, line, message):
    with pytest.raises(ValueError, match=message):
        read(line)
