"""Everything that is measured of one set of parameters: the figures of `train` and `eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dlm.commands.setup import Setup
from dlm.commands.start import is_drawn
from dlm.dialogue.endings import completed
from dlm.dialogue.schema import Dialogue
from dlm.evaluation import scoring
from dlm.evaluation.evaluate import ScoreStep, make_score_step, score_split
from dlm.evaluation.predict import Prediction, predict
from dlm.evaluation.report import BESIDE
from dlm.evaluation.rollout import Replay, replay, success
from dlm.evaluation.scores import figures as divide
from dlm.generation.engine import Engine
from dlm.losses.cross_entropy import cross_entropy


@dataclass
class Measured:
    """What one measurement gives.

    Attributes:
      figures: flat `SPLIT/METRIC` and `rollout/SPLIT/METRIC`.
      signatures: metric -> what exactly it measures.
      predictions: split -> generated responses of its first dialogues.
    """

    figures: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    predictions: dict[str, list[Prediction]] = field(default_factory=dict)


class Measure:
    """Measures a run's model; what compiles is compiled once and serves every call."""

    def __init__(self, setup: Setup):
        self._setup = setup

    @cached_property
    def _score_step(self) -> ScoreStep:
        return make_score_step(
            self._setup.model, cross_entropy, chunk=self._setup.settings.loss.chunk
        )

    def forced(self, params: dict, split: str) -> dict[str, float]:
        """Teacher-forced figures of a split."""
        pieces = self._setup.pieces(split)
        scores = score_split(self._score_step, params, self._setup.batches(pieces), pieces)
        return divide(scores.means(), split)

    def before(self, params: dict, splits: Sequence[str]) -> dict[str, float]:
        """The figures of the model as it starts, with its initial parameters.

        Of weights drawn anew they are teacher-forced only: what they write is noise, and long.
        """
        if not is_drawn(self._setup.settings.init):
            whole = self.whole(params, splits).figures
            return {name: x for name, x in whole.items() if not name.startswith(BESIDE)}
        figures: dict[str, float] = {}
        for split in splits:
            figures.update(self.forced(params, split))
        return figures

    def whole(self, params: dict, splits: Sequence[str]) -> Measured:
        """Teacher-forced, generated and live figures of each split."""
        setup, settings = self._setup, self._setup.settings
        measured, engine = Measured(), setup.engine(params)
        measured.signatures["loss, accuracies"] = self._scored(splits)
        for name in splits:
            measured.figures.update(self.forced(params, name))
            source = setup.split(name)
            first = range(min(settings.eval.dialogues, len(source)))
            dialogues = [completed(source[i]) for i in first]
            predictions = predict(
                dialogues, engine, setup.template, settings.generate, setup.open_world
            )
            measured.predictions[name] = predictions
            self._generated(measured, name, dialogues)
            if settings.tools and settings.eval.rollouts:
                measured.figures.update(self._live(engine, name))
                measured.signatures["success"] = (
                    f"the first {settings.eval.rollouts} dialogues of a split, replayed live; the "
                    "world ends as after the recorded calls, which may have changed nothing"
                )
        return measured

    def _scored(self, splits: Sequence[str]) -> str:
        """What the teacher-forced figures are over, and what of it is too long to be scored."""
        most = self._setup.settings.eval.at_most
        parts = [f"teacher-forced, {f'the first {most}' if most else 'all'} dialogues of a split"]
        for split in splits:
            counts = self._setup.pieces(split).counts
            left = {**counts.rejected, "turns too long": counts.dropped_turns}
            named = ", ".join(f"{number:,} {why}" for why, number in left.items() if number)
            parts += [f"of {split} not scored: {named}"] if named else []
        return "; ".join(parts)

    def _live(self, engine: Engine, split: str) -> dict[str, float]:
        """Success of live replays of a split's first dialogues, in all and by task."""
        setup, settings = self._setup, self._setup.settings
        source = setup.split(split)
        dialogues = [source[i] for i in range(min(settings.eval.rollouts, len(source)))]
        replays = replay(dialogues, setup.open_world, engine, setup.template, settings.generate)
        by_task: dict[str, list[Replay]] = {}
        for dialogue, one in zip(dialogues, replays, strict=True):
            by_task.setdefault(dialogue.task, []).append(one)
        figures = {f"rollout/{split}/success": success(replays).value}
        for task in sorted(filter(None, by_task)):
            figures[f"rollout/{split}/task:{task}/success"] = success(by_task[task]).value
        return figures

    def _generated(self, measured: Measured, split: str, dialogues: list[Dialogue]) -> None:
        """Scores what was generated of a split, beside the gold and the commonest responses."""
        given = scoring.examples(dialogues, measured.predictions[split])
        if not given:
            return
        scorers, config = self._setup.settings.eval.scorers, self._setup.settings.generate
        written = scoring.score(scorers, given)
        beside = {"gold": scoring.score(scorers, scoring.gold(given))}
        if "train" in self._setup.corpus.splits:
            train = map(completed, self._setup.split("train"))
            commonest = scoring.commonest(train, given)
            beside["commonest"] = scoring.score(scorers, commonest)
        measured.figures.update({f"{split}/{n}": value for n, value in written.figures.items()})
        for name, scored in beside.items():
            measured.figures.update({f"{name}/{split}/{n}": v for n, v in scored.figures.items()})
        measured.signatures["generated"] = (
            f"the first {self._setup.settings.eval.dialogues} dialogues of a split, from the gold "
            f"history, {config.mode}{', constrained' if config.constrained else ''}; gold: the "
            "corpus's own responses, scored alike; commonest: always training's commonest response"
        )
        for line in written.signature.splitlines():
            name, _, text = line.partition(": ")
            measured.signatures[name.replace("_", " ")] = text
