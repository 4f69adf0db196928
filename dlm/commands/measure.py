"""Everything that is measured of one set of parameters: the figures of `train` and `eval`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from dlm.commands.setup import Setup
from dlm.commands.start import is_drawn
from dlm.core.progress import Progress
from dlm.data.store import Pieces
from dlm.dialogue.actions import User
from dlm.dialogue.endings import completed
from dlm.dialogue.schema import Dialogue
from dlm.evaluation import scoring
from dlm.evaluation.endings import (
    LogProbStep,
    ending_means,
    make_log_prob_step,
    piece_log_probs,
)
from dlm.evaluation.evaluate import ScoreStep, make_score_step, score_split
from dlm.evaluation.predict import Prediction, predict
from dlm.evaluation.report import BESIDE
from dlm.evaluation.rollout import MAX_TURNS, RecordedUser, Rollout, roll_out, success
from dlm.evaluation.scores import figures as divide
from dlm.generation.engine import Completion, Engine, GenerateConfig, Request, Written, collect
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


class Told:
    """An engine that says how many responses it has written."""

    def __init__(self, engine: Engine, progress: Progress) -> None:
        self._engine, self._progress = engine, progress
        self._done = 0

    def generate(self, requests: Sequence[Request], config: GenerateConfig) -> list[Completion]:
        """Writes all responses."""
        return collect(len(requests), self._counted(self._engine.stream(requests, config)))

    def _counted(self, stream: Iterable[Written]) -> Iterator[Written]:
        for written in stream:
            self._done += written.reason is not None
            self._progress.update(self._done)
            yield written


class Measure:
    """Measures a run's model; what compiles is compiled once and serves every call."""

    def __init__(self, setup: Setup):
        self._setup = setup

    @cached_property
    def _score_step(self) -> ScoreStep:
        return make_score_step(
            self._setup.model, cross_entropy, chunk=self._setup.settings.loss.chunk
        )

    @cached_property
    def _log_prob_step(self) -> LogProbStep:
        return make_log_prob_step(self._setup.model, chunk=self._setup.settings.loss.chunk)

    def forced(self, params: dict, split: str) -> dict[str, float]:
        """Teacher-forced figures of a split; where it has endings to compare, of these too."""
        pieces = self._setup.pieces(split)
        batches = self._setup.batches(pieces)
        with Progress(batches.num_steps(0), f"scoring {split}", "batch") as progress:
            means = score_split(self._score_step, params, batches, pieces, progress).means()
        if pieces.counts.endings:
            groups = self._setup.pieces(split, groups=True)
            means |= ending_means(groups, self.log_probs(params, groups)) if len(groups) else {}
        return divide(means, split)

    def log_probs(self, params: dict, pieces: Pieces) -> np.ndarray:
        """The log probability of what each piece supervises, [N] float32."""
        return piece_log_probs(self._log_prob_step, params, self._setup.batches(pieces))

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
        if any(setup.pieces(split).counts.endings for split in splits):
            measured.signatures["preference, choice"] = self._compared(splits)
        for name in splits:
            measured.figures.update(self.forced(params, name))
            source = setup.split(name)
            first = range(min(settings.eval.dialogues, len(source)))
            dialogues = [completed(source[i]) for i in first]
            with Progress(None, f"answering {name}", "response") as progress:
                measured.predictions[name] = predict(
                    dialogues,
                    Told(engine, progress),
                    setup.template,
                    settings.generate,
                    setup.open_world,
                )
            self._generated(measured, name, dialogues)
            if settings.tools and settings.eval.rollouts:
                self._replayed(measured, engine, name)
            if settings.tools and settings.eval.simulations:
                self._simulated(measured, engine, name)
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

    def _compared(self, splits: Sequence[str]) -> str:
        """What the figures of endings are over, and what of it does not fit."""
        parts = [
            "log probabilities of all that an ending has to learn, summed (per token: over their "
            "number); of equal ones each counts its share"
        ]
        for split in splits:
            left = self._setup.pieces(split, groups=True).counts.rejected
            named = ", ".join(f"{number:,} {why}" for why, number in left.items())
            parts += [f"of {split} not compared: {named}"] if named else []
        return "; ".join(parts)

    def _replayed(self, measured: Measured, engine: Engine, split: str) -> None:
        """Live conversations with the recorded users of a split's first dialogues."""
        setup, most = self._setup, self._setup.settings.eval.rollouts
        source = setup.split(split)
        dialogues = [source[i] for i in range(min(most, len(source)))]
        users = [RecordedUser(dialogue, setup.open_world) for dialogue in dialogues]
        self._roll_out(measured, engine, f"rollout/{split}", dialogues, users)
        measured.signatures["success, rollout"] = (
            f"the first {most} dialogues of a split, replayed live; the world ends as after the "
            "recorded calls, which may have changed nothing"
        )

    def _simulated(self, measured: Measured, engine: Engine, split: str) -> None:
        """Live conversations with simulated users: a split's first dialogues that have a goal."""
        setup, config = self._setup, self._setup.settings.eval
        found = ((dialogue, setup.user(dialogue)) for dialogue in setup.split(split))
        pairs = [*islice((pair for pair in found if pair[1] is not None), config.simulations)]
        dialogues, users = [d for d, _ in pairs], [u for _, u in pairs if u is not None]
        self._roll_out(measured, engine, f"simulated/{split}", dialogues, users)
        measured.signatures["success, simulated"] = (
            f"goals of the first {config.simulations} dialogues of a split that have one, pursued "
            f"by {config.users}, at most {MAX_TURNS} turns"
        )

    def _roll_out(
        self,
        measured: Measured,
        engine: Engine,
        prefix: str,
        dialogues: Sequence[Dialogue],
        users: Sequence[User],
    ) -> None:
        """Success, in all and by task, and turns of conversations with these users."""
        setup = self._setup
        with Progress(None, f"talking, {prefix}", "response") as progress:
            held = roll_out(
                dialogues,
                users,
                setup.open_world,
                Told(engine, progress),
                setup.template,
                setup.settings.generate,
                max_turns=MAX_TURNS,
            )
        by_task: dict[str, list[Rollout]] = {"": held}
        for dialogue, one in zip(dialogues, held, strict=True):
            if dialogue.task:
                by_task.setdefault(f"task:{dialogue.task}/", []).append(one)
        for scope in sorted(scope for scope in by_task if by_task[scope]):
            measured.figures[f"{prefix}/{scope}success"] = success(by_task[scope]).value
        if held:
            measured.figures[f"{prefix}/turns"] = sum(one.turns for one in held) / len(held)

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
