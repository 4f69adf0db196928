"""Decoding: the numbers of a full forward pass, in any company, to the right end."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.core.errors import UserError
from dlm.generation.engine import Engine, GenerateConfig, Request, Written, bucket
from dlm.models.decoder import Model
from dlm.models.vocabulary import fitted, grow, opened

GREEDY = GenerateConfig()
SAMPLED = GenerateConfig(temperature=1.0, seed=5)


class Free:
    """Everything may be written, up to a stop token; some tokens may be forbidden or forced."""

    def __init__(self, stop: int = -1, only: set[int] | None = None, force: list[int] = ()) -> None:
        self.done, self.stop, self.only, self.force = False, stop, only, list(force)

    def forced(self) -> int | None:
        return self.force[0] if self.force else None

    def allows(self, token: int) -> bool:
        return self.only is None or token in self.only

    def advance(self, token: int) -> None:
        self.force = self.force[1:]
        self.done = token == self.stop


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Prompts of different lengths between 3 and 90, beyond one prompt bucket."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 90, count)
    return [random.integers(0, 250, length).tolist() for length in lengths]


def requests(count: int, tokens: int = 9, seed: int = 0) -> list[Request]:
    return [Request(p, Free(), tokens, i) for i, p in enumerate(prompts(count, seed))]


@functools.cache
def forward(model: Model) -> Callable[..., jax.Array]:
    """Compiled once: log-probabilities [T, V] of a row [T] of which `length` tokens count."""

    def run(params: dict, tokens: jax.Array, length: int) -> jax.Array:
        positions = jnp.arange(tokens.shape[0])
        hidden = model.hidden(params, tokens[None], positions[None], (positions < length)[None] * 1)
        return jax.nn.log_softmax(model.logits(params, hidden[0]))

    return jax.jit(run)


def next_log_probs(model: Model, params: dict, ids: list[int]) -> np.ndarray:
    """Log-probabilities [V] of the token after `ids`, by a forward pass over all of them."""
    row = np.zeros(model.config.max_length, np.int32)
    row[: len(ids)] = ids
    return np.asarray(forward(model)(params, row, len(ids)))[len(ids) - 1]


def full_forward(model: Model, params: dict, prompt: list[int], tokens: int) -> tuple[list, float]:
    """Greedy decoding without a cache, and the sum of its log-probabilities."""
    ids, total = list(prompt), 0.0
    for _ in range(tokens):
        log_probs = next_log_probs(model, params, ids)
        ids.append(int(np.argmax(log_probs)))
        total += float(log_probs[ids[-1]])
    return ids[len(prompt) :], total


def test_decoding_with_the_cache_equals_full_forward_passes(
    engine: Engine, model: Model, params: dict
):
    """Cache = no cache."""
    for request, done in zip(requests(3), engine.generate(requests(3), GREEDY), strict=True):
        ids, total = full_forward(model, params, list(request.prompt), 9)
        assert list(done.ids) == ids
        assert done.log_prob == pytest.approx(total, abs=1e-4)  # nine float32 terms


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_company_and_order_change_nothing(engine: Engine, config: GenerateConfig):
    """Batch invariance."""
    alone = [engine.generate([request], config)[0] for request in requests(6)]
    together = engine.generate(requests(6), config)
    reverse = engine.generate(requests(6)[::-1], config)[::-1]
    assert len({done.ids for done in alone}) == 6
    for one, two, three in zip(alone, together, reverse, strict=True):
        assert one.ids == two.ids == three.ids
        assert one.log_prob == pytest.approx(two.log_prob, abs=1e-4)


def test_prompts_that_are_read_in_another_way_are_read_apart(model, params, monkeypatch):
    """From `LONG` tokens on; else what a neighbour is long would decide how a row is rounded."""
    batches = []
    monkeypatch.setattr(
        Engine, "_decode", lambda _, rows, __: batches.append([row.index for row in rows]) or []
    )
    for longest, apart in ((1024, [[1, 3], [2, 0]]), (400, [[1, 3, 2, 0]])):
        batches.clear()
        engine = Engine(model, params, 0, longest)
        engine.generate(
            [dataclasses.replace(requests(1)[0], prompt=[1] * n) for n in (390, 5, 300, 256)],
            GREEDY,
        )
        assert batches == apart


@pytest.fixture(scope="module")
def untrained(model: Model) -> Engine:
    """Weights as they are drawn: log-probabilities near log(1/V), for an absolute tolerance."""
    return Engine(model, model.init(jax.random.key(3)), 0, model.config.max_length)


@functools.cache
def alone(engine: Engine, place: int) -> list[Written]:
    """What a request of `requests(9)` is answered where nothing else is asked."""
    return list(engine.stream([requests(9)[place]], GREEDY))


@settings(max_examples=12)
@given(places=st.lists(st.integers(0, 8), min_size=2, max_size=9, unique=True))
def test_any_neighbours_change_no_log_probability(untrained: Engine, places: list[int]):
    """Batch invariance: any company in any order, of any lengths, leaves each token what it is."""
    found: dict[int, list[Written]] = {place: [] for place in places}
    asked = requests(9)
    for written in untrained.stream([asked[place] for place in places], GREEDY):
        found[places[written.request]].append(written)
    for place, events in found.items():
        expected = alone(untrained, place)
        assert [event.token for event in events] == [event.token for event in expected]
        np.testing.assert_allclose(
            [event.log_prob for event in events],
            [event.log_prob for event in expected],
            atol=1e-5,
            rtol=0,
        )


def test_seed_and_sample_decide_what_is_drawn(engine: Engine):
    prompt = prompts(1)[0]

    def draw(seed: int, sample: int | None) -> tuple[int, ...]:
        config = dataclasses.replace(SAMPLED, seed=seed)
        return engine.generate([Request(prompt, Free(), 9, sample)], config)[0].ids

    assert draw(5, 2) == draw(5, 2)
    assert len({draw(5, 2), draw(6, 2), draw(5, 3)}) == 3
    assert draw(5, None) == draw(5, 0)


def test_temperature_towards_zero_is_greedy(engine: Engine):
    cold = engine.generate(requests(2), GenerateConfig(temperature=1e-4))
    assert [d.ids for d in cold] == [d.ids for d in engine.generate(requests(2), GREEDY)]


def test_a_finished_row_ends_no_other(engine: Engine):
    """Stopping: each response ends where its own grammar is done, and is what it is alone."""
    alone = [done.ids for done in engine.generate(requests(6, tokens=12), GREEDY)]
    stops = [ids[1 + 2 * place] for place, ids in enumerate(alone[:5])] + [-1]
    asked = [
        dataclasses.replace(request, grammar=Free(stop))
        for request, stop in zip(requests(6, tokens=12), stops, strict=True)
    ]
    for ids, stop, done in zip(alone, stops, engine.generate(asked, GREEDY), strict=True):
        end = ids.index(stop) + 1 if stop in ids else 12
        assert done.ids == ids[:end]
        assert done.reason == ("stop" if stop in ids else "length")


def test_padding_may_be_any_token(model: Model, params: dict, engine: Engine):
    """Stopping: where padding is the end token, prompts that hold it are read, and none ends."""
    asked = [dataclasses.replace(r, prompt=[*r.prompt, 7, 7]) for r in requests(3, tokens=12)]
    expected = [done.ids for done in engine.generate(asked, GREEDY)]
    for end in (7, expected[0][4]):
        padded = Engine(model, params, end, model.config.max_length)
        stopping = [dataclasses.replace(r, grammar=Free(end)) for r in asked]
        for ids, done in zip(expected, padded.generate(stopping, GREEDY), strict=True):
            assert done.ids == (ids[: ids.index(end) + 1] if end in ids else ids)


def test_more_requests_than_rows(model: Model, params: dict, engine: Engine):
    few = Engine(model, params, 0, model.config.max_length, max_rows=2)
    expected = [done.ids for done in engine.generate(requests(5), GREEDY)]
    assert [done.ids for done in few.generate(requests(5), GREEDY)] == expected


def test_the_models_limit_ends_a_response(engine: Engine, model: Model, params: dict):
    """Up to the length limit, and not beyond: the last token written need not be read."""
    limit = model.config.max_length
    prompt = [i % 250 for i in range(limit + 1)]
    lengths = {limit - 3: 4, limit: 1, limit + 1: 0}
    asked = [Request(prompt[:length], Free(), 30) for length in lengths]
    for done, (length, room) in zip(engine.generate(asked, GREEDY), lengths.items(), strict=True):
        assert done.reason == "length"
        assert list(done.ids) == full_forward(model, params, prompt[:length], room)[0]


def test_the_best_allowed_token_is_taken_however_unlikely(engine: Engine):
    request = requests(1)[0]
    hidden = engine.generate([dataclasses.replace(request, max_new_tokens=1)], GREEDY)
    for config in (GREEDY, SAMPLED, GenerateConfig(temperature=1.0, top_k=1)):
        asked = [dataclasses.replace(request, grammar=Free(only={201}), max_new_tokens=3)]
        (done,) = engine.generate(asked, config)
        assert done.ids == (201, 201, 201)
        assert done.log_prob < hidden[0].log_prob


def test_of_several_unlikely_tokens_the_likeliest_is_taken(
    engine: Engine, model: Model, params: dict
):
    prompt = prompts(1)[0]
    log_probs = next_log_probs(model, params, prompt)
    worst = np.argsort(log_probs)[:40]
    for config in (GREEDY, GenerateConfig(temperature=1.0, top_k=1)):
        asked = [Request(prompt, Free(only=set(worst.tolist())), 1)]
        (done,) = engine.generate(asked, config)
        assert done.ids == (worst[-1],)
        assert done.log_prob == pytest.approx(float(log_probs[worst[-1]]), abs=1e-4)


def test_no_allowed_token_ends_a_response(engine: Engine):
    asked = [Request([1, 2], Free(only=set()), 5), Request([1, 2], Free(), 5)]
    stuck, other = engine.generate(asked, GREEDY)
    assert (stuck.ids, stuck.reason) == ((), "stuck")
    assert (len(other.ids), other.reason) == (5, "length")


def test_forced_tokens_are_written_and_cost_nothing(engine: Engine):
    (done,) = engine.generate([Request([1, 2, 3], Free(force=[7, 8]), 2)], GREEDY)
    assert (done.ids, done.log_prob) == ((7, 8), 0.0)


def test_stream_yields_tokens_as_they_are_written(engine: Engine):
    asked = requests(2, tokens=3)
    events = list(engine.stream(asked, GREEDY))
    assert [{event.request for event in events[i : i + 2]} for i in (0, 2, 4)] == [{0, 1}] * 3
    assert [event.reason for event in events] == [None] * 4 + ["length"] * 2
    done = engine.generate(requests(2, tokens=3), GREEDY)
    assert [e.token for e in events if e.request == 0] == list(done[0].ids)


def test_each_bucket_is_compiled_once(model: Model, params: dict):
    """Trace count: other requests, settings and order in the same buckets compile nothing."""
    shapes: Counter[tuple[int, ...]] = Counter()

    class Counting(Model):
        def hidden(self, params, tokens, *rest, **named):
            shapes[tokens.shape] += 1
            return super().hidden(params, tokens, *rest, **named)

    engine = Engine(Counting(model.config), params, 0, model.config.max_length)
    short = [Request(p[:50], Free(), 5) for p in prompts(4)]
    engine.generate(short, GREEDY)
    engine.generate([Request(p[:60], Free(), 7) for p in prompts(3, seed=1)], GREEDY)
    assert shapes == {(4, 64): 1, (4, 1): 1}
    for temperature, seed in ((0.5, 0), (1.5, 1)):
        engine.generate(requests(4), GenerateConfig(temperature=temperature, seed=seed))
    assert shapes == {(4, 64): 1, (4, 128): 1, (4, 1): 2}


def test_a_masked_token_is_never_written(model: Model, params: dict, engine: Engine):
    """Growth: not even where nothing else is allowed; a forced one may be, it is only read."""
    known = model.config.vocab_size
    config = fitted(model.config, known, known + 2)
    old, new = known, known + 1
    grown = opened(grow(params, config, known), np.array([old]))
    writer = Engine(Model(config), grown, 0, config.max_length)
    asked = [Request(prompts(1)[0], Free(only=only), 2) for only in ({new}, {new, old}, None)]
    forced = Request(prompts(1)[0], Free(force=[new]), 1)
    stuck, other, free, told = writer.generate([*asked, forced], GREEDY)
    assert (stuck.ids, stuck.reason) == ((), "stuck")
    assert other.ids == (old, old)
    assert told.ids == (new,)
    (plain,) = engine.generate([Request(prompts(1)[0], Free(), 2)], GREEDY)
    assert free.ids == plain.ids


def test_buckets():
    assert [bucket(n, 1, 4, 50) for n in (1, 2, 4, 5, 16, 17, 50)] == [1, 4, 4, 16, 16, 50, 50]


def test_empty_prompt_and_bad_settings_are_refused(engine: Engine):
    with pytest.raises(ValueError, match="request 1: the prompt is empty"):
        engine.generate([Request([1], Free()), Request([], Free())], GREEDY)
    with pytest.raises(UserError, match=r"generate\.top_p=0 must be above 0 and at most 1"):
        GenerateConfig(top_p=0)
    with pytest.raises(UserError, match=r"generate\.temperature=-1 must be at least 0"):
        GenerateConfig(temperature=-1)
