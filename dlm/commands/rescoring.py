"""Figures of generated responses from stored predictions: the corpus is read, no model is."""

from __future__ import annotations

from pathlib import Path

from dlm.commands.results import beside_corpus
from dlm.commands.settings import Settings
from dlm.commands.setup import Options, Setup, read_config
from dlm.core import config as border
from dlm.evaluation import scoring
from dlm.evaluation.predict import read_predictions


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
