"""Which messages are learned, and how much of what was said before is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dlm.core.errors import UserError
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import CHANNELS, Dialogue, Message, turn_of_messages

HIDEABLE = ("tool", *CHANNELS)
KEPT = ("system", "context", "tools")  # seen from any turn on, whatever is left out


@dataclass(frozen=True)
class PolicyConfig:
    """The `policy` section of a config: which messages are learned, and what is seen of earlier.

    A token's loss weight is 1 if the policy learns its message, times `Message.weight`. By default
    one pass over a dialogue learns every message of the assistant, each from all that precedes it.

    Evaluation scores every message of `channels` in every turn, once, whatever `turns` and `expand`
    say, so that two runs that differ in those are scored alike. `history` and `hide` hold in
    evaluation, generation and conversation as in training: the model is asked what it was taught.

    Attributes:
      channels: of the assistant, those that are learned and scored.
      turns: 0 = all; k = of the turns with something to learn the first k, and what follows them is
        not read either; -k = the last k (-1 = the last turn only).
      expand: each turn is an example of its own, with its history, instead of one pass over the
        dialogue: n turns are read about n / 2 times. `data.overflow` then says what happens where a
        turn and its history are too long: "raise", or else the oldest turns are left out.
      history: earlier turns that are seen, the nearest; None = all. System messages, context and
        the list of tools always are.
      hide: what is not seen of earlier turns: channels, or "tool" for results. Within its own turn
        everything is. Where either limits the history, each turn is an example of its own.
    """

    channels: tuple[str, ...] = CHANNELS
    turns: int = 0
    expand: bool = False
    history: int | None = None
    hide: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for channel in self.channels:
            check_choice(channel, CHANNELS, "", "policy.channels")
        for name in self.hide:
            check_choice(name, HIDEABLE, "", "policy.hide")
        if "call" in self.hide and "tool" not in self.hide:
            raise UserError("policy.hide has 'call' without 'tool': a result needs its call")
        if self.history is not None and self.history < 0:
            raise UserError(f"policy.history={self.history} must be at least 0, or None for all")

    @property
    def limited(self) -> bool:
        """Whether a turn does not see all that precedes it."""
        return self.history is not None or bool(self.hide)

    @property
    def alone(self) -> bool:
        """Whether each turn is an example of its own."""
        return self.expand or self.limited

    def scored(self) -> PolicyConfig:
        """What evaluation does with this policy."""
        return replace(self, turns=0, expand=False)

    def weight(self, message: Message) -> float:
        """The weight of every output token of a message whose turn is learned; 0 = only read."""
        learned = message.role == "assistant" and message.channel in self.channels
        return float(np.float32(message.weight)) if learned else 0.0

    def weights(self, dialogue: Dialogue) -> list[float]:
        """The weight of each message of a dialogue."""
        weights = [self.weight(message) for message in dialogue.messages]
        if not self.turns:
            return weights
        turns = turn_of_messages(dialogue)
        learned = sorted({turn for turn, weight in zip(turns, weights, strict=True) if weight})
        chosen = learned[: self.turns] if self.turns > 0 else learned[self.turns :]
        return [w if turn in chosen else 0.0 for turn, w in zip(turns, weights, strict=True)]

    def read(self, dialogue: Dialogue) -> Dialogue:
        """What is read of a dialogue: without the turns behind the first k, if only those learn."""
        if self.turns <= 0:
            return dialogue
        turns = turn_of_messages(dialogue)
        learned = [t for t, w in zip(turns, self.weights(dialogue), strict=True) if w]
        last = max(learned, default=turns[-1] if turns else -1)
        kept = (m for m, turn in zip(dialogue.messages, turns, strict=True) if turn <= last)
        return replace(dialogue, messages=tuple(kept))

    def sees(self, name: str, turn: int, current: int) -> bool:
        """Whether a message (its channel, or else its role) of a turn is seen in the current one.

        `turn` is at most `current`.
        """
        if turn == current or name in KEPT:
            return True
        near = self.history is None or turn >= current - self.history
        return near and name not in self.hide

    def prompted(self, dialogue: Dialogue) -> Dialogue:
        """What the assistant sees of a dialogue whose next message it writes."""
        if not self.limited:
            return dialogue
        following = replace(dialogue, messages=(*dialogue.messages, Message("assistant")))
        *turns, current = turn_of_messages(following)
        messages = tuple(
            message
            for message, turn in zip(dialogue.messages, turns, strict=True)
            if self.sees(message.channel or message.role, turn, current)
        )
        return replace(dialogue, messages=messages)
