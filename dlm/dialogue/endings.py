"""Alternative endings of one history: a chosen and a rejected one, or candidates for a reply.

A token loss learns one of them as it learns any dialogue: the chosen ending, the right candidate
(`completed`). A sequence loss compares them all (`alternatives`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from dlm.dialogue.schema import Dialogue, Message

ENDINGS = ("", "rejected", "chosen", "wrong", "right")  # "" = the dialogue has no other ending
PREFERRED = ("", "chosen", "right")


class Alternative(NamedTuple):
    """One ending of a dialogue.

    Attributes:
      ending: what it is, of `ENDINGS`.
      dialogue: history and ending.
      history: how many of its messages the alternatives share.
    """

    ending: str
    dialogue: Dialogue
    history: int


def has_endings(dialogue: Dialogue) -> bool:
    """Whether there is something to compare: a pair, or a choice whose answer is known."""
    return bool(dialogue.chosen and dialogue.rejected) or _is_choice(dialogue)


def alternatives(dialogue: Dialogue) -> list[Alternative]:
    """Returns a dialogue once for each of its endings, in their order; [] where it has one only.

    A candidate is a reply. It stands behind the messages, or in place of the reply that they end
    with. A dialogue with both a pair and candidates is a pair.
    """
    if dialogue.chosen and dialogue.rejected:
        pair = {"chosen": dialogue.chosen, "rejected": dialogue.rejected}
        return [
            _ended(dialogue, dialogue.messages, messages, ending)
            for ending, messages in pair.items()
        ]
    if not _is_choice(dialogue):
        return []
    *history, reply = dialogue.messages
    if reply.channel != "reply":
        history, reply = [*history, reply], Message("assistant")
    return [
        _ended(
            dialogue,
            tuple(history),
            (replace(reply, content=text),),
            "right" if index == dialogue.answer else "wrong",
        )
        for index, text in enumerate(dialogue.candidates)
    ]


def completed(dialogue: Dialogue) -> Dialogue:
    """Returns the dialogue with the ending that is preferred behind its messages."""
    if not (dialogue.chosen or dialogue.rejected or dialogue.candidates):
        return dialogue
    for alternative in alternatives(dialogue):
        if alternative.ending in PREFERRED:
            return alternative.dialogue
    return _ended(dialogue, dialogue.messages, dialogue.chosen, "").dialogue


def _is_choice(dialogue: Dialogue) -> bool:
    return dialogue.answer is not None and len(dialogue.candidates) > 1


def _ended(
    dialogue: Dialogue,
    history: tuple[Message, ...],
    messages: tuple[Message, ...],
    ending: str,
) -> Alternative:
    whole = replace(dialogue, messages=(*history, *messages), chosen=(), rejected=())
    return Alternative(ending, whole, len(history))
