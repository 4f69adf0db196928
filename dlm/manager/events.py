"""What happened in a conversation: an immutable list of events, and what it folds to.

    conversation = events + the record they belong to          to_dialogue     from_dialogue

Messages become messages; events that are none (failures, ratings) are kept in `meta`, so both ways
lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from dlm.dialogue.checks import RecordError
from dlm.dialogue.schema import Dialogue, Message

EVENTS_FIELD = "manager_events"


Content = str | tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class MessageEvent:
    """An event that is a message; the fields are those of `Message`."""

    content: Content = ""
    name: str | None = None
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SystemSaid(MessageEvent):
    """An instruction to the model."""

    content: Content


@dataclass(frozen=True)
class ContextGiven(MessageEvent):
    """Facts given to the model."""

    content: Content


@dataclass(frozen=True)
class UserSaid(MessageEvent):
    """A user's message: a turn begins."""

    content: Content


@dataclass(frozen=True, kw_only=True)
class Wrote(MessageEvent):
    """The assistant wrote a channel other than `call`; `reply` ends the round."""

    channel: str


@dataclass(frozen=True, kw_only=True)
class Called(MessageEvent):
    """The assistant called an action; a call that could not be read has `content` alone."""

    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Returned(MessageEvent):
    """An action's result, or (not `ok`) why there is none."""

    ok: bool = True


@dataclass(frozen=True)
class Failed:
    """The model gave no usable response.

    Attributes:
      reason: "length", "stuck", "rounds", or what is malformed.
      text: what it wrote and could not be taken, control tokens spelled out.
    """

    reason: str
    text: str = ""


@dataclass(frozen=True)
class Rated:
    """A user judged what stands before this event."""

    value: float
    comment: str = ""


Event = MessageEvent | Failed | Rated

_ROLES: dict[type[MessageEvent], str] = {
    SystemSaid: "system",
    ContextGiven: "context",
    UserSaid: "user",
    Wrote: "assistant",
    Called: "assistant",
    Returned: "tool",
}
_NOTES = {"failed": Failed, "rated": Rated}


@dataclass(frozen=True)
class Conversation:
    """Everything that happened.

    Attributes:
      events: in order; none is ever changed.
      record: the dialogue they belong to, without its messages.
    """

    events: tuple[Event, ...] = ()
    record: Dialogue = field(default_factory=lambda: Dialogue("", ()))

    def plus(self, *events: Event) -> Conversation:
        """Returns the conversation with these events after it."""
        return replace(self, events=(*self.events, *events))


class View(NamedTuple):
    """What a conversation has come to.

    Attributes:
      turns: user messages so far.
      latest: what was last written in each channel.
      calls: calls made in this turn.
      failures: responses that could not be used, in all turns.
    """

    turns: int
    latest: Mapping[str, Content]
    calls: int
    failures: int


def fold(events: Iterable[Event]) -> View:
    """Returns what the events come to, one after the other."""
    view = View(turns=0, latest={}, calls=0, failures=0)
    for event in events:
        match event:
            case UserSaid():
                view = view._replace(turns=view.turns + 1, calls=0)
            case Wrote():
                view = view._replace(latest={**view.latest, event.channel: event.content})
            case Called():
                view = view._replace(calls=view.calls + 1)
            case Failed():
                view = view._replace(failures=view.failures + 1)
    return view


def undo(conversation: Conversation) -> Conversation:
    """Returns the conversation as it was before the last user message; unchanged without one."""
    events = conversation.events
    last = max((i for i, e in enumerate(events) if isinstance(e, UserSaid)), default=len(events))
    return replace(conversation, events=events[:last])


def to_dialogue(conversation: Conversation) -> Dialogue:
    """Returns the conversation as a dialogue; `from_dialogue` gives it back."""
    messages: list[Message] = []
    notes: list[dict[str, Any]] = []
    for event in conversation.events:
        if isinstance(event, MessageEvent):
            messages.append(_message(event))
        else:
            kind = type(event).__name__.lower()
            notes.append({"at": len(messages), "event": kind, **asdict(event)})
    meta = {**conversation.record.meta, **({EVENTS_FIELD: notes} if notes else {})}
    return replace(conversation.record, messages=tuple(messages), meta=meta)


def from_dialogue(dialogue: Dialogue, messages: tuple[Message, ...] | None = None) -> Conversation:
    """Returns a dialogue as a conversation.

    Args:
      dialogue: any valid one.
      messages: take these for its messages, to begin another conversation like it; what the
        dialogue says of its own course (events, endings, ratings) is then left out.

    Raises:
      RecordError: the events in `meta` are damaged.
    """
    meta = dict(dialogue.meta)
    notes = meta.pop(EVENTS_FIELD, [])
    record = replace(dialogue, messages=(), meta=meta)
    if messages is not None:
        record = replace(record, candidates=(), answer=None, chosen=(), rejected=())
        return Conversation(tuple(map(_event, messages)), replace(record, label=None, rating=None))
    events: list[Event] = []
    try:
        waiting = [(int(note["at"]), _note(note)) for note in notes]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        problem = f"damaged ({error}); remove it"
        raise RecordError(dialogue.id, f"meta.{EVENTS_FIELD}", problem) from None
    for index, message in enumerate((*dialogue.messages, None)):
        events += [event for at, event in waiting if at == index]
        events += [] if message is None else [_event(message)]
    return Conversation(tuple(events), record)


def _note(note: Mapping[str, Any]) -> Failed | Rated:
    fields = {name: value for name, value in note.items() if name not in ("at", "event")}
    return _NOTES[note["event"]](**fields)


def _message(event: MessageEvent) -> Message:
    failed = isinstance(event, Returned) and not event.ok
    channel = "call" if isinstance(event, Called) else None
    return Message(
        role=_ROLES[type(event)],
        content=event.content,
        channel=event.channel if isinstance(event, Wrote) else channel,
        name=event.name,
        arguments=event.arguments if isinstance(event, Called) else None,
        weight=event.weight,
        meta={**event.meta, "ok": False} if failed else event.meta,
    )


def _event(message: Message) -> MessageEvent:
    kind = next(kind for kind, role in _ROLES.items() if role == message.role)
    name, meta = message.name, message.meta
    specific: dict[str, Any] = {}
    if message.channel == "call":
        kind, specific = Called, {"arguments": message.arguments}
    elif message.channel is not None:
        specific = {"channel": message.channel}
    elif message.role == "tool" and meta.get("ok") is False:
        meta = {name: value for name, value in meta.items() if name != "ok"}
        specific = {"ok": False}
    return kind(content=message.content, name=name, weight=message.weight, meta=meta, **specific)
