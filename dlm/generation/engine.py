"""Decoding with a key/value cache: one prefill, then one compiled step for all rows at once.

Shapes come in buckets, so a bucket compiles once: rows, prompt lengths and cache lengths are
rounded up. Rows are padded on the right, and the cache slot of a token is its position, so a row's
numbers do not depend on its neighbours. What the grammar of a row allows is decided on the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dlm.core.errors import UserError
from dlm.generation.constraints import Grammar
from dlm.generation.sampling import Knobs, Ranking
from dlm.generation.steps import prefill, step
from dlm.models.by_output import held_by_output
from dlm.models.cache import LONG
from dlm.models.decoder import Model
from dlm.models.vocabulary import is_hidden

# Compiled once a model and bucket, whatever the number of engines.
_prefill = jax.jit(prefill, static_argnames=("model", "cache_length", "mode"))
_step = jax.jit(step, static_argnames=("model", "mode"), donate_argnames="cache")
_take = jax.jit(lambda arrays, rows: jax.tree.map(lambda array: array[rows], arrays))

MIN_PROMPT = 64
MIN_CACHE = 128


@dataclass(frozen=True)
class GenerateConfig:
    """How responses are written.

    Attributes:
      max_new_tokens: tokens a response may have.
      temperature: 0 = greedy.
      top_k: keep the likeliest k tokens; 0 = all.
      top_p: keep the smallest set of likeliest tokens that holds this probability; 1 = all.
      seed: of the sampling noise.
      constrained: hold channels to their order and calls to their tool's schema.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    constrained: bool = True

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not fits:
                raise UserError(f"generate.{name}={getattr(self, name)} must be {wanted}")

    @property
    def mode(self) -> str:
        """Which of the ways of `sampling.choose` these numbers ask for."""
        if self.temperature == 0:
            return "greedy"
        return "filtered" if self.top_k or self.top_p < 1 else "sampled"


GREEDY = GenerateConfig()


@dataclass(frozen=True)
class Request:
    """One response to write.

    Attributes:
      prompt: ids the model has read; at least one.
      grammar: what may be written; used up by decoding, so each request has its own.
      max_new_tokens: tokens it may have.
      sample: names the request's sampling noise; None = its place in the list.
    """

    prompt: Sequence[int]
    grammar: Grammar
    max_new_tokens: int = 256
    sample: int | None = None


@dataclass(frozen=True)
class Completion:
    """What was written.

    Attributes:
      ids: without the prompt.
      reason: "stop" (the grammar is done), "length" (`max_new_tokens` or the model's limit) or
        "stuck" (the grammar allows no token).
      log_prob: sum of log p(token | before) in nats under the plain model, forced tokens apart.
    """

    ids: tuple[int, ...]
    reason: str
    log_prob: float


class Written(NamedTuple):
    """One event of `Engine.stream`: a token of a request, or its end, or both.

    Attributes:
      request: its place in the list.
      token: None where the response ends without a further one.
      log_prob: of the token, in nats; 0 where it was forced.
      reason: why the response ends here, as in `Completion`; None while it goes on.
    """

    request: int
    token: int | None
    log_prob: float
    reason: str | None


@dataclass
class _Row:
    """A request while it is decoded; `position` is that of the next token."""

    index: int
    request: Request
    position: int
    limit: int
    token: int = 0

    @property
    def sample(self) -> int:
        return self.index if self.request.sample is None else self.request.sample


def bucket(size: int, smallest: int, factor: int, largest: int) -> int:
    """The least of smallest, smallest * factor, ..., largest that holds `size`."""
    held = smallest
    while held < size:
        held *= factor
    return min(held, largest)


class Writer(Protocol):
    """Whatever writes responses: an engine, or something around one."""

    def generate(self, requests: Sequence[Request], config: GenerateConfig) -> list[Completion]:
        """Writes all responses, in the order of the requests."""
        ...


class Engine:
    """Writes responses with one model.

    Args:
      model: its `hidden` takes a cache whose slots are positions.
      params: the model's parameters.
      pad_id: token of padding; never read.
      max_length: positions that the model may read.
      max_rows: responses decoded at once.
    """

    def __init__(
        self, model: Model, params: dict, pad_id: int, max_length: int, *, max_rows: int = 64
    ) -> None:
        self._params = held_by_output(params, model.dtype)
        self.max_length = max_length
        self._pad_id = pad_id
        self._max_rows = max_rows
        self._model = model

    def generate(self, requests: Sequence[Request], config: GenerateConfig) -> list[Completion]:
        """Writes all responses; see `stream`."""
        return collect(len(requests), self.stream(requests, config))

    def stream(self, requests: Sequence[Request], config: GenerateConfig) -> Iterator[Written]:
        """Yields tokens as they are written, `max_rows` requests at a time.

        Each request ends with exactly one event that has a reason. A prompt longer than
        `max_length` ends at once with "length".

        Raises:
          ValueError: a prompt is empty.
        """
        rows = []
        for index, request in enumerate(requests):
            length = len(request.prompt)
            if not length:
                raise ValueError(f"request {index}: the prompt is empty")
            limit = min(request.max_new_tokens, self.max_length + 1 - length)
            if limit < 1:
                yield Written(index, None, 0.0, "length")
            else:
                rows.append(_Row(index, request, length, length + limit))
        rows.sort(key=lambda row: row.position)  # prompts of like length share a bucket
        # Rows that are read in another way never share a batch: neighbours change no number.
        long = [self._prompt_bucket(row.position) >= LONG for row in rows]
        for part in (rows[: long.count(False)], rows[long.count(False) :]):
            for start in range(0, len(part), self._max_rows):
                yield from self._decode(part[start : start + self._max_rows], config)

    def _decode(self, rows: list[_Row], config: GenerateConfig) -> Iterator[Written]:
        """Decodes rows together to the end of the last."""
        knobs = Knobs(
            jnp.int32(config.seed),
            jnp.float32(config.temperature),
            jnp.int32(config.top_k),
            jnp.float32(config.top_p),
        )
        size = self._rows(len(rows))
        longest = max(row.limit for row in rows) - 1
        cache, ranking = _prefill(
            self._model,
            self._params,
            *self._prompts(rows, size),
            knobs,
            cache_length=bucket(longest, MIN_CACHE, 2, self.max_length),
            mode=config.mode,
        )
        places: list[_Row | None] = [*rows, *[None] * (size - len(rows))]
        while True:
            for place, written in _pick(places, ranking):
                yield written
                if written.reason is not None:
                    places[place] = None
            alive = [place for place, row in enumerate(places) if row is not None]
            if not alive:
                return
            smaller = self._rows(len(alive))
            if smaller < size:
                size = smaller
                kept = alive + [alive[0]] * (size - len(alive))
                cache = _take(cache, np.array(kept, np.int32))
                places = [places[place] for place in alive] + [None] * (size - len(alive))
            cache, ranking = _step(
                self._model, self._params, cache, *_last_tokens(places), knobs, mode=config.mode
            )

    def _prompt_bucket(self, length: int) -> int:
        return bucket(length, MIN_PROMPT, 2, self.max_length)

    def _rows(self, count: int) -> int:
        return bucket(count, 1, 4, self._max_rows)

    def _prompts(self, rows: Sequence[_Row], size: int) -> tuple[np.ndarray, ...]:
        """Prompts padded on the right [size, P], their lengths and samples [size]."""
        longest = max(row.position for row in rows)
        tokens = np.full((size, self._prompt_bucket(longest)), self._pad_id, np.int32)
        lengths, samples = np.zeros(size, np.int32), np.zeros(size, np.int32)
        for place, row in enumerate(rows):
            tokens[place, : row.position] = row.request.prompt
            lengths[place], samples[place] = row.position, row.sample
        return tokens, lengths, samples


def collect(count: int, stream: Iterable[Written]) -> list[Completion]:
    """Gathers the events of `Engine.stream` over `count` requests into completions."""
    ids: list[list[int]] = [[] for _ in range(count)]
    reasons, log_probs = [""] * count, [0.0] * count
    for index, token, log_prob, reason in stream:
        if token is not None:
            ids[index].append(token)
        log_probs[index] += log_prob
        reasons[index] = reason or ""
    return [Completion(tuple(i), r, p) for i, r, p in zip(ids, reasons, log_probs, strict=True)]


def _last_tokens(places: Sequence[_Row | None]) -> tuple[np.ndarray, ...]:
    """Tokens, positions, activity and samples [B] of the rows, for `step`."""
    table = np.zeros((4, len(places)), np.int32)
    for place, row in enumerate(places):
        if row is not None:
            table[:, place] = row.token, row.position - 1, 1, row.sample
    return tuple(table)


def _pick(places: Sequence[_Row | None], ranking: Ranking) -> Iterator[tuple[int, Written]]:
    """Lets each row's grammar take the first token it allows, and advances the row."""
    ids, log_probs = np.asarray(ranking.ids).tolist(), np.asarray(ranking.log_probs).tolist()
    for place, row in enumerate(places):
        if row is None:
            continue
        grammar = row.request.grammar
        forced = grammar.forced()
        if forced is not None:
            choice: tuple[int, float] | None = (forced, 0.0)
        else:
            short = zip(ids[place], log_probs[place], strict=True)
            choice = next((c for c in short if c[0] >= 0 and grammar.allows(c[0])), None)
            choice = choice or _search(grammar, ranking, place)
        if choice is None:
            yield place, Written(row.index, None, 0.0, "stuck")
            continue
        row.token = choice[0]
        row.position += 1
        grammar.advance(row.token)
        ended = "length" if row.position == row.limit else None
        yield place, Written(row.index, *choice, "stop" if grammar.done else ended)


def _search(grammar: Grammar, ranking: Ranking, place: int) -> tuple[int, float] | None:
    """The best allowed token of the whole row: by score, those filtered out last, by logit.

    A masked token is never written.
    """
    logits = np.asarray(ranking.logits)[place]
    hidden = is_hidden(logits)
    for token in np.lexsort((-logits, -np.asarray(ranking.scores)[place])).tolist():
        if not hidden[token] and grammar.allows(token):
            return token, float(logits[token] - np.asarray(ranking.log_normalisers)[place])
    return None
