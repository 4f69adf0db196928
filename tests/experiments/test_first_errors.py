"""Where responses go wrong first: messages are stretches of learned positions."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.first_errors import first_wrong


@pytest.mark.parametrize(
    ("weights", "correct", "firsts"),
    [
        ((0, 1, 1, 0, 0, 1, 1, 1), (0, 1, 1, 0, 0, 1, 0, 0), [None, 6]),
        ((1, 1, 0, 1), (0, 0, 1, 0), [0, 3]),
        ((0.5, 0, 0.25), (1, 0, 1), [None, None]),
        ((0, 0, 0), (0, 0, 0), []),
    ],
)
def test_the_first_wrong_position_of_every_message(weights, correct, firsts):
    assert first_wrong(np.array(weights), np.array(correct, bool)) == firsts
