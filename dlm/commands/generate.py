"""Answers dialogues with a trained model: JSONL in, JSONL out.

    python run.py generate --workdir=DIR --input=FILE --output=FILE [--format=dlm]

Each dialogue of the input ends with a user's message; the output holds it with the round that the
model wrote after it, calls executed by the run's tools. --format is that of the input: dlm,
openai, sharegpt or prompt_response. How is set by `--config.generate.*`: temperature, top_p,
max_new_tokens, constrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.core.progress import Progress
from dlm.dialogue.readers import read, write_jsonl
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import message_text
from dlm.generation.engine import Engine
from dlm.manager import actions
from dlm.manager.conversation import respond, run_batch
from dlm.manager.events import Failed, from_dialogue, to_dialogue

TOGETHER = 64  # dialogues answered in one batch


def run(argv: list[str]) -> int:
    """The verb `generate`."""
    source, rest = take_flag(argv, "input")
    target, rest = take_flag(rest, "output")
    form, rest = take_flag(rest, "format")
    options = parse_options(rest, saved=True)
    if options.rest:
        raise UserError(f"generate does not know {options.rest[0]!r}; see its --help")
    if not source or not target:
        raise UserError("generate needs --input=FILE and --output=FILE")
    if Path(target).exists():
        raise UserError(f"{target} is there already; choose another --output")
    dialogues = list(read(source, format=form or "dlm"))
    for dialogue in dialogues:
        if not dialogue.messages or dialogue.messages[-1].role != "user":
            raise UserError(f"{source}: dialogue {dialogue.id!r} must end with a user's message")
    setup = Setup(options)
    engine = setup.engine(setup.trained_params())
    answered: list[Dialogue] = []
    with Progress(len(dialogues), "answering", "dialogue") as progress:
        for start in range(0, len(dialogues), TOGETHER):
            answered += answer(setup, engine, dialogues[start : start + TOGETHER])
            progress.update(len(answered))
    write_jsonl(target, answered)
    reasons = [reason for reason in map(failure, answered) if reason]
    print(
        f"{len(answered)} dialogues, {len(reasons)} of them with a response that failed: {target}"
    )
    if reasons:
        print(f"the first one failed by {reasons[0]}")
    return 0


def failure(dialogue: Dialogue) -> str:
    """Why a response in it could not be used, so that an apology stands in its place; "" = none."""
    events = from_dialogue(dialogue).events
    return next((event.reason for event in events if isinstance(event, Failed)), "")


def answer(setup: Setup, engine: Engine, dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """Each dialogue with the round that the model writes after its last user message.

    The calls that a dialogue holds already are executed first, so that its world is as it says.
    """
    config = setup.settings.generate
    rounds = []
    for dialogue in dialogues:
        *before, user = dialogue.messages
        history = from_dialogue(dialogue, messages=tuple(before))
        rounds.append(
            respond(
                history,
                message_text(user),
                actions.rebuild(setup.open_world(dialogue), history),
                setup.template,
                constrained=config.constrained,
                max_new_tokens=config.max_new_tokens,
            )
        )
    return [to_dialogue(conversation) for conversation in run_batch(engine, rounds, config)]
