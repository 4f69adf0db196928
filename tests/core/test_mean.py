from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlm.core.mean import Mean, add

numbers = st.integers(-1000, 1000).map(float)
counts = st.integers(0, 50).map(float)


@given(st.lists(st.tuples(numbers, counts), min_size=1, max_size=8))
def test_parts_added_then_divided_equal_the_whole(parts):
    """Accumulation is exact: any split of the items gives the mean of all of them."""
    total = Mean(0.0, 0.0)
    for value, count in parts:
        total = total.plus(Mean(value * count, count))
    everything = [value for value, count in parts for _ in range(int(count))]
    expected = sum(everything) / len(everything) if everything else 0.0
    assert total.count == len(everything)
    assert abs(total.value - expected) <= 1e-9 * max(1.0, abs(expected))


def test_the_mean_of_nothing_is_zero():
    assert Mean(0.0, 0.0).value == 0.0


def test_tables_add_key_by_key():
    a = {"loss": Mean(6.0, 3.0), "only_a": Mean(1.0, 1.0)}
    b = {"loss": Mean(2.0, 1.0), "only_b": Mean(5.0, 2.0)}
    assert add(a, b) == {
        "loss": Mean(8.0, 4.0),
        "only_a": Mean(1.0, 1.0),
        "only_b": Mean(5.0, 2.0),
    }
    assert a["loss"] == Mean(6.0, 3.0)
