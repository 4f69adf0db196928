"""One round of a conversation, as a generator that asks for responses and executes calls.

    user text -> response -> call -> result -> response -> ... -> reply

`respond` yields requests and is sent completions, so that whoever runs it decides how they are
decoded: one conversation with its tokens as they come, or many in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from dlm.dialogue.actions import World
from dlm.dialogue.checks import RecordError
from dlm.dialogue.schema import Dialogue, turns, validate
from dlm.dialogue.template import Rejected, Span, Template
from dlm.dialogue.windows import KEPT
from dlm.generation.constraints import response_grammar
from dlm.generation.engine import (
    GREEDY,
    Completion,
    Engine,
    GenerateConfig,
    Request,
    Writer,
    Written,
    collect,
)
from dlm.manager import actions
from dlm.manager.events import (
    Called,
    Conversation,
    Event,
    Failed,
    Returned,
    UserSaid,
    Wrote,
    to_dialogue,
)

APOLOGY = "Sorry, something went wrong on my side. Could you say that again?"

Round = Generator[Request, Completion, Conversation]


def respond(
    conversation: Conversation,
    user_text: str,
    world: World,
    template: Template,
    *,
    constrained: bool = True,
    max_new_tokens: int = 256,
    max_calls: int = 8,
    execute: Callable[[World, Called], Returned] = actions.execute,
) -> Round:
    """One round: the user's message, what the model writes, calls and results, up to a reply.

    Output that cannot be used (malformed, too long, too many calls), and a history that the
    template refuses, is recorded as `Failed`, followed by an apology that is never learned
    (weight 0); nothing raises.

    Args:
      conversation: what happened so far.
      user_text: what the user says.
      world: its tools are called.
      template: of the model.
      constrained: see `ResponseGrammar`.
      max_new_tokens: of one response.
      max_calls: responses with calls in this round before it is given up.
      execute: gives the result of a call.

    Yields:
      Request: one a response; send its Completion.

    Returns:
      Conversation: with the round's events.
    """
    conversation = conversation.plus(UserSaid(actions.clean(user_text)))
    for _ in range(max_calls + 1):
        try:
            completion = yield from _ask(conversation, world, template, constrained, max_new_tokens)
        except Rejected as rejected:
            return conversation.plus(*_failure(f"refused: {rejected}"))
        conversation = read_response(conversation, completion, template)
        calls = _last_calls(conversation)
        if not calls:
            return conversation
        conversation = conversation.plus(*(execute(world, call) for call in calls))
    return conversation.plus(*_failure("rounds"))


def run_one(
    engine: Engine,
    generator: Round,
    config: GenerateConfig = GREEDY,
    on_token: Callable[[Request, int], None] | None = None,
) -> Conversation:
    """Runs one generator; `on_token` sees each token as it is written, and the request it is of."""

    def watched(request: Request) -> Iterator[Written]:
        for written in engine.stream([request], config):
            if on_token is not None and written.token is not None:
                on_token(request, written.token)
            yield written

    answer = _resume(generator, None)
    while isinstance(answer, Request):
        (completion,) = collect(1, watched(answer))
        answer = _resume(generator, completion)
    return answer


def run_batch(
    engine: Writer, generators: Sequence[Round], config: GenerateConfig = GREEDY
) -> list[Conversation]:
    """Runs generators side by side; what all of them wait for is decoded in one batch.

    A generator's sampling noise is named by its place in the list, so it does not depend on how
    far the others are.
    """
    answers = [_resume(generator, None) for generator in generators]
    while True:
        requests = {
            place: replace(answer, sample=place)
            for place, answer in enumerate(answers)
            if isinstance(answer, Request)
        }
        if not requests:
            return [answer for answer in answers if not isinstance(answer, Request)]
        completions = engine.generate(list(requests.values()), config)
        for place, completion in zip(requests, completions, strict=True):
            answers[place] = _resume(generators[place], completion)


def read_response(
    conversation: Conversation, completion: Completion, template: Template
) -> Conversation:
    """Returns the conversation with what the model wrote, message by message.

    Every message is checked as part of the conversation before it is taken. From the first one
    that is not whole or not valid, the rest is a failure; what follows calls is left out.
    """
    start, reason = len(completion.ids), completion.reason
    for span in template.split(completion.ids):
        if span.channel != "call" and _last_calls(conversation):
            break
        start = span.start
        if not span.ended:
            break
        try:
            event = _read_message(span, template)
            longer = conversation.plus(event)
            validate(to_dialogue(longer), "")
        except RecordError as error:
            reason = f"malformed: {error}"
            break
        conversation, start = longer, len(completion.ids)
        if not isinstance(event, Called) and event.channel == "reply":
            return conversation
    if _last_calls(conversation):
        return conversation
    return conversation.plus(*_failure(reason, _spell(completion.ids[start:], template)))


def _resume(generator: Round, completion: Completion | None) -> Request | Conversation:
    """Runs a generator to its next request, or to its end."""
    try:
        return next(generator) if completion is None else generator.send(completion)
    except StopIteration as stop:
        return stop.value


def _last_calls(conversation: Conversation) -> list[Called]:
    """The calls that end a conversation, in order."""
    last = takewhile(lambda event: isinstance(event, Called), reversed(conversation.events))
    return [event for event in last if isinstance(event, Called)][::-1]


def _ask(
    conversation: Conversation,
    world: World,
    template: Template,
    constrained: bool,
    max_new_tokens: int,
) -> Generator[Request, Completion, Completion]:
    """Asks for a response; where the model's limit cuts it, again without the oldest turn."""
    dialogue = to_dialogue(conversation)
    resumed = isinstance(conversation.events[-1], Returned)
    while True:
        grammar = response_grammar(template, world.tools, constrained=constrained, resumed=resumed)
        completion = yield Request(template.prompt(dialogue), grammar, max_new_tokens)
        shorter = without_oldest_turn(dialogue)
        cut = completion.reason == "length" and len(completion.ids) < max_new_tokens
        if not cut or shorter is None:
            return completion
        dialogue = shorter


def without_oldest_turn(dialogue: Dialogue) -> Dialogue | None:
    """Drops the oldest whole turn, as training does; None where it is the only one."""
    groups = turns(dialogue)
    if len(groups) < 2:
        return None
    messages = enumerate(dialogue.messages)
    kept = tuple(m for i, m in messages if i not in groups[0] or m.role in KEPT)
    return replace(dialogue, messages=kept)


def _read_message(span: Span, template: Template) -> Wrote | Called:
    """Reads one message of a response.

    Raises:
      RecordError: there is no channel, or a control token in the content.
    """
    if not span.channel:
        raise RecordError("", "channel", "the message begins with none")
    if any(map(template.tokenizer.control_name, span.ids)):
        raise RecordError("", "content", "holds a control token")
    text = actions.clean(span.text)
    if span.channel == "call":
        return actions.read_call(text)
    return Wrote(channel=span.channel, content=text)


def _spell(ids: Sequence[int], template: Template) -> str:
    tokenizer = template.tokenizer
    text = "".join(tokenizer.control_name(t) or tokenizer.decode([t]) for t in ids)
    return actions.clean(text)


def _failure(reason: str, text: str = "") -> tuple[Event, Event]:
    apology = Wrote(channel="reply", content=APOLOGY, weight=0.0, meta={"by": "manager"})
    return Failed(reason, text), apology
