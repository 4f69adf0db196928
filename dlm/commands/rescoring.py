"""Figures of generated responses from stored predictions: the corpus is read, no model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlm.commands.settings import Settings
from dlm.commands.setup import Options, Setup, read_config
from dlm.core import config as border
from dlm.core.errors import UserError
from dlm.dialogue.endings import completed
from dlm.dialogue.schema import response_units
from dlm.evaluation import scoring
from dlm.evaluation.predict import Prediction, read_predictions, spelled


def rescored(workdir: Path) -> dict[str, float]:
    """The figures of a run's `predictions/SPLIT.jsonl`, as `SPLIT/METRIC`.

    Teacher-forced figures need the probabilities of tokens, which predictions do not hold: of them
    there are none here.

    Raises:
      UserError: the workdir holds no run, a file there is damaged, or the corpus is another.
    """
    config = read_config(workdir)
    settings = border.parse(Settings, config, str(workdir))
    setup = Setup(Options(settings, config.to_dict(), workdir, []))
    figures: dict[str, float] = {}
    for split in settings.eval.splits:
        path = workdir / "predictions" / f"{split}.jsonl"
        predictions = read_predictions(path) if path.exists() else []
        if predictions:
            given = beside_corpus(setup, split, predictions, path)
            scored = scoring.score(settings.eval.scorers, given).figures
            figures |= {f"{split}/{name}": value for name, value in scored.items()}
    return figures


def beside_corpus(
    setup: Setup, split: str, predictions: Sequence[Prediction], path: Path
) -> list[scoring.Example]:
    """Predictions beside the corpus's dialogues, whose own responses are the gold.

    Raises:
      UserError: a dialogue is not in the split, a response is missing or there twice, or the file's
        gold is another than the corpus's.
    """
    wanted = {prediction.dialogue for prediction in predictions}
    source = setup.split(split)
    dialogues = {d.id: completed(d) for d in source if d.id in wanted}
    checked = []
    for prediction in predictions:
        where = f"{path}: dialogue {prediction.dialogue!r}"
        dialogue = dialogues.get(prediction.dialogue)
        if dialogue is None:
            raise UserError(f"{where} is not in the split {split!r}; name it by --split")
        units = response_units(dialogue)
        if not 0 <= prediction.unit < len(units):
            raise UserError(f"{where} has {len(units)} responses and none {prediction.unit}")
        gold = tuple(dialogue.messages[i] for i in units[prediction.unit])
        if prediction.gold and spelled(prediction.gold) != spelled(gold):
            raise UserError(
                f"{where}, response {prediction.unit}: its gold is not the corpus's; it was "
                "written for other data"
            )
        checked.append(replace(prediction, gold=gold))
    try:
        return scoring.examples(dialogues.values(), checked)
    except ValueError as error:
        raise UserError(f"{path}: {error}; give every response of a dialogue once") from None
