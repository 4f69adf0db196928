"""Growth of a vocabulary: old text is scored as before, new rows are read and written as any."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import FAMILIES, hidden_of, init, logits_of, loud, pack, random_tokens

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.vocabulary import fitted, grow, is_hidden, joined, opened

V, ADDED = 61, 7
SEGMENTS, POSITIONS = pack([[20, 11]], 37)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request) -> tuple[Model, dict, Model, dict]:
    """A model, and the same one grown by `ADDED` rows, all of them masked."""
    old = Model(FAMILIES[request.param])
    params = loud(init(old, 0))
    new = Model(fitted(old.config, V, V + ADDED))
    return old, params, new, grow(params, new.config, V)


def test_old_text_is_scored_as_before(case):
    """Logits of old columns keep every bit; the new ones have no probability; no leaf moved."""
    old, params, new, grown = case
    tokens = random_tokens(SEGMENTS.shape)
    before = np.asarray(logits_of(old, params, tokens, SEGMENTS, POSITIONS))
    after = logits_of(new, grown, tokens, SEGMENTS, POSITIONS)
    np.testing.assert_array_equal(after[..., :V], before)
    assert (jax.nn.softmax(after)[..., V:] == 0).all()
    assert np.isfinite(after).all()
    for path, leaf in flatten(params).items():
        assert flatten(grown)[path] is leaf, path


def test_a_grown_model_has_the_leaves_of_its_config(case):
    """What is grown is what is restored: the same paths, shapes and dtypes."""
    *_, new, grown = case
    wanted = jax.eval_shape(new.init, jax.random.key(0))
    spelled = [
        {path: (leaf.shape, leaf.dtype) for path, leaf in flatten(tree).items()}
        for tree in (wanted, grown)
    ]
    assert spelled[0] == spelled[1]


def test_new_rows_are_read_and_written_as_rows_of_one_table(case):
    """A grown model is the plain one whose two tables hold all rows."""
    _, _, new, grown = case
    rows = jax.random.normal(jax.random.key(5), (ADDED, new.config.width))
    for room, leaf in (("embedding", "new_tokens"), ("head", "new_kernel")):
        if leaf in grown[room]:
            grown = {**grown, room: {**grown[room], leaf: rows * (1 + len(room))}}
    grown = opened(grown, np.arange(V, V + ADDED))
    plain = Model(replace(new.config, new_tokens=0, masked=False))
    tokens = random_tokens(SEGMENTS.shape, vocab_size=V + ADDED)
    assert (tokens >= V).any()
    whole, config = joined(grown, new.config)
    assert config == plain.config
    arrays = tokens, SEGMENTS, POSITIONS
    np.testing.assert_array_equal(hidden_of(new, grown, *arrays), hidden_of(plain, whole, *arrays))
    # Sums of one product may be taken in another order in a table of another size.
    np.testing.assert_allclose(
        logits_of(new, grown, *arrays), logits_of(plain, whole, *arrays), rtol=1e-5, atol=1e-5
    )
    assert set(flatten(whole)) == set(flatten(jax.eval_shape(plain.init, jax.random.key(0))))


def test_opened_rows_take_little_from_old_text(case):
    """Of n opened rows and V old ones, at most n / (n + V), for any hidden state."""
    old, params, new, grown = case
    hidden = 5 * jax.random.normal(jax.random.key(2), (300, old.config.width))
    before = jax.nn.log_softmax(old.logits(params, hidden))
    grown = opened(grown, np.array([V, V + 3]))
    after = jax.nn.log_softmax(new.logits(grown, hidden))
    lost = before - after[:, :V]
    assert np.max(lost) <= np.log((V + 2) / V) + 1e-5
    assert np.max(lost) > 0
    assert is_hidden(after[:, V + 1] * 0 + new.logits(grown, hidden)[:, V + 1]).all()


def test_a_vocabulary_can_grow_again():
    """Rows, their values and what was open stay; the new ones are the mean of what is written."""
    model = Model(FAMILIES["llama"])
    once = fitted(model.config, V, V + 2)
    params = opened(grow(init(model, 0), once, V), np.array([V + 1]))
    params["embedding"]["new_tokens"] = params["embedding"]["new_tokens"] + jnp.array(
        [[1.0], [2.0]]
    )
    twice = fitted(once, V + 2, V + 5)
    again = grow(params, twice, V + 2)
    assert (twice.vocab_size, twice.new_tokens) == (V + 5, 5)
    np.testing.assert_array_equal(
        again["embedding"]["new_tokens"][:2], params["embedding"]["new_tokens"]
    )
    assert again["head"]["mask"].tolist() == [True] * V + [False, True] + [False] * 3
    written = jnp.vstack([params["embedding"]["tokens"], params["embedding"]["new_tokens"][1:]])
    expected = np.tile(written.mean(axis=0), (3, 1))
    np.testing.assert_allclose(again["embedding"]["new_tokens"][2:], expected, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_without_a_token_are_masked_until_tokens_take_their_place(family):
    """More rows than tokens: the last ones get no probability, and are none of the mean."""
    model = Model(FAMILIES[family])
    params, tokens = init(model, 0), V - 4
    padded = fitted(model.config, tokens, tokens)
    masked = grow(params, padded, tokens)
    assert (padded.vocab_size, padded.new_tokens) == (V, 0)
    logits = Model(padded).logits(masked, jnp.ones((2, padded.width)))
    assert is_hidden(logits).tolist() == [[False] * tokens + [True] * 4] * 2
    more = fitted(padded, tokens, tokens + 2)
    assert (more.vocab_size, more.new_tokens) == (tokens + 2, 2)
    for start in (params, masked):
        grown = grow(start, more, tokens)
        table = params["embedding"]["tokens"][:tokens]
        np.testing.assert_array_equal(grown["embedding"]["tokens"], table)
        expected = np.tile(table.mean(axis=0), (2, 1))
        np.testing.assert_allclose(grown["embedding"]["new_tokens"], expected, atol=1e-6)
        assert grown["head"]["mask"].tolist() == [True] * tokens + [False] * 2


def test_a_vocabulary_that_fits_is_left_alone():
    model = Model(FAMILIES["gpt2"])
    params = init(model, 0)
    assert fitted(model.config, V, V) == model.config
    assert flatten(grow(params, model.config, V)).keys() == flatten(params).keys()


def test_more_new_rows_than_rows_are_refused():
    with pytest.raises(UserError, match=r"model\.new_tokens=61 must leave old ones in .*=61"):
        ModelConfig(vocab_size=61, new_tokens=61)
    with pytest.raises(
        UserError, match=r"model\.vocab_size=61 is below the 62 tokens of its token"
    ):
        fitted(FAMILIES["gpt2"], 62, 62)
