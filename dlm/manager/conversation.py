"""One round of a conversation, as a generator that asks for responses and executes calls.

    user text -> response -> call -> result -> response -> ... -> reply

`respond` yields requests and is sent completions, so that whoever runs it decides how they are
decoded: one conversation with its tokens as they come, or many in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

from dlm.dialogue.actions import World
from dlm.dialogue.checks import RecordError
from dlm.dialogue.schema import CHANNELS, Dialogue, turns, validate
from dlm.dialogue.template import assistant_header, prompt
from dlm.dialogue.tokenizer import Tokenizer
from dlm.dialogue.windows import KEPT
from dlm.generation.constraints import ResponseGrammar
from dlm.generation.engine import (
    GREEDY,
    Completion,
    Engine,
    GenerateConfig,
    Request,
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
    tokenizer: Tokenizer,
    *,
    constrained: bool = True,
    max_new_tokens: int = 256,
    max_calls: int = 8,
    execute: Callable[[World, Called], Returned] = actions.execute,
) -> Round:
    """One round: the user's message, what the model writes, calls and results, up to a reply.

    Output that cannot be used (malformed, too long, too many calls) is recorded as `Failed`,
    followed by an apology that is never learned (weight 0); nothing raises.

    Args:
      conversation: what happened so far.
      user_text: what the user says.
      world: its tools are called.
      tokenizer: of the model.
      constrained: see `ResponseGrammar`.
      max_new_tokens: of one response.
      max_calls: calls in this round before it is given up.
      execute: gives the result of a call.

    Yields:
      Request: one a response; send its Completion.

    Returns:
      Conversation: with the round's events.
    """
    conversation = conversation.plus(UserSaid(actions.clean(user_text)))
    for _ in range(max_calls + 1):
        completion = yield from _ask(conversation, world, tokenizer, constrained, max_new_tokens)
        conversation = read_response(conversation, completion, tokenizer)
        last = conversation.events[-1]
        if not isinstance(last, Called):
            return conversation
        conversation = conversation.plus(execute(world, last))
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
    engine: Engine, generators: Sequence[Round], config: GenerateConfig = GREEDY
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
    conversation: Conversation, completion: Completion, tokenizer: Tokenizer
) -> Conversation:
    """Returns the conversation with what the model wrote, message by message.

    Every message is checked as part of the conversation before it is taken. From the first one
    that is not whole or not valid, the rest is a failure.
    """
    end, header = tokenizer.control("<|end|>"), assistant_header(tokenizer)
    ids = list(completion.ids)
    while end in ids:
        stop = ids.index(end)
        try:
            event = _read_message(ids[:stop], tokenizer)
            longer = conversation.plus(event)
            validate(to_dialogue(longer), "")
        except RecordError as error:
            return conversation.plus(*_failure(f"malformed: {error}", _spell(ids, tokenizer)))
        conversation = longer
        if isinstance(event, Called) or event.channel == "reply":
            return conversation
        ids = ids[stop + 1 :]
        if ids[: len(header)] == header:
            ids = ids[len(header) :]
    return conversation.plus(*_failure(completion.reason, _spell(ids, tokenizer)))


def _resume(generator: Round, completion: Completion | None) -> Request | Conversation:
    """Runs a generator to its next request, or to its end."""
    try:
        return next(generator) if completion is None else generator.send(completion)
    except StopIteration as stop:
        return stop.value


def _ask(
    conversation: Conversation,
    world: World,
    tokenizer: Tokenizer,
    constrained: bool,
    max_new_tokens: int,
) -> Generator[Request, Completion, Completion]:
    """Asks for a response; where the model's limit cuts it, again without the oldest turn."""
    dialogue = to_dialogue(conversation)
    resumed = isinstance(conversation.events[-1], Returned)
    while True:
        grammar = ResponseGrammar(tokenizer, world.tools, constrained=constrained, resumed=resumed)
        completion = yield Request(prompt(dialogue, tokenizer), grammar, max_new_tokens)
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


def _read_message(ids: Sequence[int], tokenizer: Tokenizer) -> Wrote | Called:
    """Reads `[channel token] content`.

    Raises:
      RecordError: there is no channel, or a control token in the content.
    """
    names = [tokenizer.control_name(token) for token in ids]
    channel = (names[0] or "")[2:-2] if names else ""
    if channel not in CHANNELS:
        raise RecordError("", "channel", "the message begins with none")
    if any(names[1:]):
        raise RecordError("", "content", "holds a control token")
    text = actions.clean(tokenizer.decode(ids[1:]))
    return actions.read_call(text) if channel == "call" else Wrote(channel=channel, content=text)


def _spell(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    text = "".join(tokenizer.control_name(t) or tokenizer.decode([t]) for t in ids)
    return actions.clean(text)


def _failure(reason: str, text: str = "") -> tuple[Event, Event]:
    apology = Wrote(channel="reply", content=APOLOGY, weight=0.0, meta={"by": "manager"})
    return Failed(reason, text), apology
