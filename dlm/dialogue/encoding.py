"""Dialogues as arrays: which token follows which, and which of them are learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from dlm.core.errors import UserError
from dlm.dialogue.checks import check_choice
from dlm.dialogue.endings import Alternative, alternatives, completed
from dlm.dialogue.policy import KEPT, PolicyConfig
from dlm.dialogue.schema import CHANNELS, Dialogue, response_units, turn_of_messages
from dlm.dialogue.template import Rejected, RenderedMessage, Template
from dlm.dialogue.windows import Line, Windows, disjoint, each_alone, each_once, newest

CHANNEL_NAMES = ("system", "context", "user", "tool", "tools", *CHANNELS)
_IDS = {name: index for index, name in enumerate(CHANNEL_NAMES)}
OVERFLOWS = ("drop", "split", "raise")


@dataclass(frozen=True)
class Encoded:
    """A dialogue, or a piece of one, as arrays of equal length.

    The shift by one is done here: `targets[t]` is the token after `tokens[t]`.

    Attributes:
      tokens: [n] int32, what the model reads.
      targets: [n] int32.
      loss_weights: [n] float32, weight of `targets[t]`; 0 on headers and on what is only read.
      channel_ids: [n] int32, index in `CHANNEL_NAMES` of the role or channel of `targets[t]`.
      turn_ids: [n] int32, turn of `targets[t]` in the whole dialogue; -1 before the first.
      unit_ids: [n] int32, response unit of `targets[t]` in the whole dialogue (headers are in
        none); -1 none.
      ending: which of its dialogue's endings it has, of `endings.ENDINGS`.
    """

    tokens: np.ndarray
    targets: np.ndarray
    loss_weights: np.ndarray
    channel_ids: np.ndarray
    turn_ids: np.ndarray
    unit_ids: np.ndarray
    ending: str = ""


def encode(dialogue: Dialogue, template: Template, policy: PolicyConfig) -> Encoded:
    """Returns a whole dialogue as arrays, however long."""
    return _encoded(_lines(dialogue, template.render(dialogue), policy))


def fit(
    dialogue: Dialogue,
    template: Template,
    policy: PolicyConfig,
    length: int,
    overflow: str = "drop",
    evaluation: bool = False,
) -> list[Encoded]:
    """Returns a dialogue as pieces of at most `length` positions; see `fit_many`.

    Raises:
      Rejected: nothing of the dialogue can be learned.
      UserError: it is longer than `length` and `overflow` is "raise".
    """
    pieces = fit_many([dialogue], template, policy, length, overflow, evaluation)[0]
    if isinstance(pieces, Rejected):
        raise pieces
    return pieces


def fit_many(
    dialogues: Sequence[Dialogue],
    template: Template,
    policy: PolicyConfig,
    length: int,
    overflow: str = "drop",
    evaluation: bool = False,
    groups: bool = False,
) -> list[list[Encoded] | Rejected]:
    """Returns each dialogue as pieces of at most `length` positions; cuts only between turns.

    System messages, context and the list of tools stay in every piece (those up to its end). What
    is left out can be told from `turn_ids`. A turn that does not fit by itself is left out.

    Args:
      dialogues: any number.
      template: how they are written out.
      policy: what is learned, what is seen of earlier turns, and whether each turn has a piece of
        its own, whatever fits.
      length: most positions of a piece, in tokens.
      overflow: of a longer dialogue in training, "drop" its oldest turns, "split" it into pieces
        that share no turn, or "raise".
      evaluation: every turn is scored exactly once, with the longest history that fits, whatever
        `overflow` and `policy.turns` say; turns scored in another piece are only read.
      groups: a dialogue gives one piece for each of its endings, of which the ending alone is
        learned, all of it. A row holds them all: together they take at most `length` positions, and
        the oldest turns of the history are dropped of all alike. Otherwise a dialogue has only the
        ending that is preferred (`endings.completed`).

    Returns:
      For each dialogue its pieces, each with at least one learned token, or why there are none.

    Raises:
      UserError: a dialogue is longer than `length` and `overflow` is "raise".
    """
    check_choice(overflow, OVERFLOWS, "", "data.overflow")
    mode = "evaluation" if evaluation else overflow
    policy = policy.scored() if evaluation else policy
    rest = (template, policy, length, mode)
    if groups:
        return [_or_rejected(_fit_group, dialogue, *rest) for dialogue in dialogues]
    read = [policy.read(completed(dialogue)) for dialogue in dialogues]
    rendered = template.render_many(read)
    return [_or_rejected(_fit, *each, *rest) for each in zip(read, rendered, strict=True)]


def _or_rejected(fit_one: Callable[..., list[Encoded]], *args: Any) -> list[Encoded] | Rejected:
    try:
        return fit_one(*args)
    except Rejected as rejected:
        return rejected


def _fit(
    dialogue: Dialogue,
    rendered: list[RenderedMessage] | Rejected,
    template: Template,
    policy: PolicyConfig,
    length: int,
    mode: str,
) -> list[Encoded]:
    if isinstance(rendered, Rejected):
        raise rendered
    lines = _lines(dialogue, rendered, policy)
    if not any(line.weight for line in lines):
        raise Rejected(dialogue.id, "nothing to learn", "no message has a weight under the policy")
    size = sum(line.size for line in lines) - 1  # the last token is no input
    if size <= length and not policy.alone:
        return [_encoded(lines)]
    windows = Windows(lines, length + 1, policy)
    size = windows.longest() - 1 if policy.alone else size
    if size > length and mode == "raise":
        raise UserError(
            f"dialogue {dialogue.id}: {size} tokens exceed data.length={length}; raise data.length "
            "or set data.overflow='drop'"
        )
    modes = {"drop": newest, "split": disjoint, "evaluation": each_once}
    stretches = each_alone(windows) if policy.alone else modes[mode](windows)
    pieces = [
        _encoded(_alone(dialogue, template, windows.lines(first, last, scored), length))
        for first, last, scored in stretches
        if not windows.learned.isdisjoint(range(scored, last + 1))
    ]
    if pieces:
        return pieces
    if stretches:
        detail = f"what has a weight is in turns dropped to fit {length} tokens"
        raise Rejected(dialogue.id, "nothing left to learn", detail)
    raise Rejected(dialogue.id, "too long", f"none of its turns fits {length} tokens")


def _fit_group(
    dialogue: Dialogue, template: Template, policy: PolicyConfig, length: int, mode: str
) -> list[Encoded]:
    policy, members = policy.scored(), alternatives(dialogue)
    if not members:
        detail = "it has neither a chosen and a rejected ending nor candidates with an answer"
        raise Rejected(dialogue.id, "nothing to compare", detail)
    whole = [_ending_lines(member, template, policy) for member in members]
    if not all(any(line.weight for line in lines) for lines in whole):
        detail = "an ending has no message with a weight under the policy"
        raise Rejected(dialogue.id, "nothing to learn", detail)
    last = min(turn_of_messages(member.dialogue)[member.history] for member in members)
    for first in range(last + 1):
        kept = [[x for x in lines if x.turn >= first or x.name in KEPT] for lines in whole]
        size = sum(line.size for lines in kept for line in lines) - len(members)
        if size <= length:
            break
        if mode == "raise":
            raise UserError(
                f"dialogue {dialogue.id}: its {len(members)} endings, {size} tokens with what "
                f"precedes them, exceed data.length={length}; raise it or set data.overflow='drop'"
            )
    pieces = [
        replace(_encoded(_alone(member.dialogue, template, lines, length)), ending=member.ending)
        for member, lines in zip(members, kept, strict=True)
        if size <= length
    ]
    if not pieces or sum(len(piece.tokens) for piece in pieces) > length:
        detail = f"the endings, each with the turn that it ends, exceed {length} tokens together"
        raise Rejected(dialogue.id, "endings too long for one row", detail)
    return pieces


def _ending_lines(member: Alternative, template: Template, policy: PolicyConfig) -> list[Line]:
    """Returns what is read of a dialogue whose ending is learned; what precedes has no weight."""
    turn = turn_of_messages(member.dialogue)[member.history]
    lines = []
    for line in _lines(member.dialogue, template.render(member.dialogue), policy):
        if line.message.message_index >= member.history:
            lines.append(line)
        elif policy.sees(line.name, line.turn, turn):
            lines.append(line._replace(weight=0.0))
    return lines


def _alone(dialogue: Dialogue, template: Template, kept: Sequence[Line], length: int) -> list[Line]:
    """Returns lines as the template writes them without those that were dropped.

    A checkpoint's template may begin otherwise where another message comes first.
    """
    known = {line.message.message_index: line for line in kept}
    indices = [index for index in known if index >= 0]
    part = replace(dialogue, messages=tuple(dialogue.messages[i] for i in indices))
    lines = []
    for rendered in template.render(part):
        index = rendered.message_index
        index = indices[index] if index >= 0 else index
        lines.append(known[index]._replace(message=rendered._replace(message_index=index)))
    if sum(line.size for line in lines) - 1 > length:
        raise Rejected(dialogue.id, "too long", f"its turns grow beyond {length} tokens when cut")
    return lines


def _lines(
    dialogue: Dialogue, rendered: Sequence[RenderedMessage], policy: PolicyConfig
) -> list[Line]:
    """Returns the rendered messages with their weight, channel, turn and unit."""
    units = {i: unit for unit, indices in enumerate(response_units(dialogue)) for i in indices}
    turn_ids = turn_of_messages(dialogue)
    weights = policy.weights(dialogue)
    lines = []
    for said in rendered:
        index = said.message_index
        message = index >= 0
        lines.append(
            Line(
                said,
                weights[index] if message else 0.0,
                _IDS[said.channel or said.role],
                turn_ids[index] if message else -1,
                units.get(index, -1),
            )
        )
    return lines


def _encoded(lines: Sequence[Line]) -> Encoded:
    parts = [part for line in lines for part in line.parts]
    ids = np.fromiter(chain.from_iterable(parts), np.int32)
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    of_lines = np.array([line[1:] for line in lines], np.float64).T
    fields = np.zeros((4, len(lines), 3))  # of header, output and trailer
    fields[1:3] = of_lines[1:3, :, None]
    fields[3] = -1
    fields[0, :, 1], fields[3, :, 1] = of_lines[0], of_lines[3]  # only output is learned, in a unit
    fields = np.repeat(fields.reshape(4, -1), sizes, axis=1)[:, 1:]
    channel_ids, turn_ids, unit_ids = fields[1:].astype(np.int32)
    return Encoded(  # the first token is no target
        tokens=ids[:-1],
        targets=ids[1:],
        loss_weights=fields[0].astype(np.float32),
        channel_ids=channel_ids,
        turn_ids=turn_ids,
        unit_ids=unit_ids,
    )
