"""Checkpoints that are whole, checked and strict; the only module that knows Orbax.

A checkpoint is a folder `STEP/` that Orbax writes and commits in the background. Orbax notices
neither a flipped bit nor a cast, and may load a folder that it never finished; so once the commit
is done a `manifest.json` is written into the folder: the SHA-256 of every other file, the shape
and dtype of every leaf, the digests of what the state belongs to, the caller's own counters, and
its own SHA-256. Nothing is read without it, and nothing is read before it has been verified.

Leaves are addressed by paths such as `params/layers/0/attention/query/kernel`.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax

from dlm.core import files
from dlm.core.errors import UserError
from dlm.training import manifest
from dlm.training.leaves import abstract, check_tree, leaves_of, spell
from dlm.training.manifest import Damaged
from dlm.training.processes import from_first, is_first

S = TypeVar("S")

KEEP_LAST = 2


class Checkpoints:
    """The checkpoints of one run: the last two and the best one.

    Saving is asynchronous, one save at a time: `save` copies the state and returns (so the buffers
    may be donated at once); writing, the manifest and the removal of older checkpoints follow in
    the background. Use it as a context manager: an exit that does not close it loses the save that
    is under way.

    Example:
      >>> with Checkpoints(folder, lower_is_better=True) as checkpoints:  # doctest: +SKIP
      ...     step = checkpoints.latest_good()
      ...     if step is not None:
      ...         state = checkpoints.restore(step, state)
      ...     checkpoints.save(20, state, extra={"patience_left": 3}, metric=1.25)
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        lower_is_better: bool,
        digests: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print,
    ):
        """Opens a folder of checkpoints without touching it.

        Args:
          folder: the run's checkpoint folder, which need not exist.
          lower_is_better: whether the best checkpoint has the lowest metric or the highest.
          digests: what a state belongs to (`config`, `data`, `tokenizer`); saved with it, and a
            restore whose digests differ in one of these names is refused.
          say: told of each damaged checkpoint, one line each.
        """
        self.folder = Path(folder)
        self._digests = dict(digests or {})
        self._sign = 1.0 if lower_is_better else -1.0
        self._say = say
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        *,
        extra: Mapping[str, Any] | None = None,
        metric: float | None = None,
    ) -> None:
        """Starts to save a state; waits for the save before it, if that still runs.

        A step that is there already, and good, is left as it is: the state at a step is a function
        of the step. A damaged or unfinished one is replaced.

        Args:
          step: names the checkpoint.
          state: a pytree of arrays (JAX or numpy, typed random keys included).
          extra: JSON-able values to come back with it, such as the counters of early stopping.
          metric: the figure by which the best checkpoint is kept; None or NaN never is the best.

        Raises:
          TypeError: a leaf is not an array.
          ValueError: `extra` cannot be written as JSON.
          UserError: the save before this one could not be written.
        """
        from orbax.checkpoint import v1 as ocp

        self._settle()
        path = self._path(step)
        content = {
            "step": step,
            "digests": self._digests,
            "extra": dict(extra or {}),
            "metric": metric if metric is not None and math.isfinite(metric) else None,
            "tree": {name: spell(leaf) for name, leaf in leaves_of(state).items()},
        }
        files.digest(content)  # refuses what JSON cannot hold, before anything is written
        if from_first(lambda: self._make_room(path)):
            return
        context = ocp.Context()
        # Directories made in the background make a failed save hang at exit (orbax 0.12.8).
        context.asynchronous.create_directories_asynchronously = False
        self.folder.mkdir(parents=True, exist_ok=True)
        with context:
            response = ocp.save_async(path.absolute(), state)
        self._damaged.discard(step)
        self._pending = self._pool.submit(self._finish, path, response, content)

    def _make_room(self, path: Path) -> bool:
        """Whether a checkpoint is there, and good; one that is not goes."""
        if not path.exists():
            return False
        if self.damage(int(path.name)) is None:
            return True
        _remove(path)
        return False

    def _finish(self, path: Path, response: Any, content: Mapping[str, Any]) -> None:
        """Waits for the commit, writes the manifest, then removes what is no longer kept."""
        try:
            response.result()
            if not is_first():
                return
            manifest.write(path, content)
        except (OSError, ValueError) as error:
            raise UserError(f"checkpoint {path} could not be written: {error}") from error
        keep = {*self._steps()[-KEEP_LAST:], self._best(), *self._damaged}
        for other in self.folder.iterdir():
            ours = re.fullmatch(r"(\d+)(\.orbax-checkpoint-tmp.*)?", other.name)
            if ours and (ours[2] or int(ours[1]) not in keep):
                _remove(other)

    def wait(self) -> None:
        """Waits until the save under way is finished and its manifest written.

        Raises:
          UserError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _settle(self) -> None:
        """`wait`, here and on the first process, which writes the manifest."""
        self.wait()
        from_first(self.wait)

    def close(self) -> None:
        """Finishes the save under way and releases the background thread; may be repeated."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def latest_good(self) -> int | None:
        """Returns the newest step that verifies, or None; each damaged one before it is named."""
        self._settle()
        return from_first(self._latest_good)

    def _latest_good(self) -> int | None:
        for step in reversed(self._steps()):
            reason = self.damage(step)
            if reason is None:
                return step
            self._report(step, reason)
        return None

    def best_good(self) -> int | None:
        """Returns the step with the best metric that verifies (the earliest of equals), or None."""
        self._settle()
        return from_first(self._best_good)

    def _best_good(self) -> int | None:
        while (step := self._best()) is not None:
            reason = self.damage(step)
            if reason is None:
                return step
            self._report(step, reason)
        return None

    def _report(self, step: int, reason: str) -> None:
        self._damaged.add(step)
        self._say(f"checkpoint {self._path(step)} is damaged and not used: {reason}")

    def damage(self, step: int) -> str | None:
        """Says what is wrong with a checkpoint's bytes; None when every one of them is as saved."""
        try:
            manifest.verify(self._path(step))
        except Damaged as error:
            return str(error)
        return None

    def extra(self, step: int) -> dict[str, Any]:
        """Returns the values that were saved beside the state.

        Raises:
          Damaged: the manifest is missing or was changed.
        """
        return manifest.read(self._path(step))["extra"]

    def digest(self, step: int) -> str:
        """Returns the digest of a checkpoint: of all its bytes, and of what it belongs to.

        Raises:
          Damaged: the manifest is missing or was changed.
        """
        return files.digest(manifest.read(self._path(step)))

    def restore(self, step: int, like: S, *, partial: bool = False) -> S:
        """Loads a state, bit for bit.

        Args:
          step: a step of this folder, such as `latest_good()` gives.
          like: a pytree of the same structure whose leaves have the shape, dtype and, where they
            have one, the sharding to restore to: arrays or `jax.ShapeDtypeStruct`.
          partial: `like` holds only some of the state's top-level entries, such as
            `{"params": ...}`; within each the restore is as strict as ever.

        Returns:
          The state, in the structure of `like`.

        Raises:
          Damaged: a file is missing, changed or added, or the save was never finished.
          UserError: a leaf is missing, extra, or of another shape or dtype; or a digest differs.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        path = self._path(step)
        try:
            content = manifest.verify(path)
        except Damaged as error:
            raise Damaged(f"checkpoint {path} is damaged: {error}") from None
        for name, wanted in self._digests.items():
            if (saved := content["digests"].get(name)) != wanted:
                raise UserError(
                    f"checkpoint {path} belongs to {name} {str(saved)[:12]}, this is "
                    f"{wanted[:12]}; use another workdir, or the same {name}"
                )
        wanted_tree = {name: spell(leaf) for name, leaf in leaves_of(like).items()}
        saved_tree = content["tree"]
        if partial:
            tops = {name.split("/")[0] for name in wanted_tree}
            saved_tree = {n: leaf for n, leaf in saved_tree.items() if n.split("/")[0] in tops}
        check_tree(saved_tree, wanted_tree, path)
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context:
            return ocp.load(path.absolute(), jax.tree.map(abstract, like))

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _steps(self) -> list[int]:
        """Steps that have a manifest and are not known to be damaged, ascending."""
        found = [int(path.parent.name) for path in self.folder.glob(f"[0-9]*/{manifest.NAME}")]
        return sorted(step for step in found if step not in self._damaged)

    def _best(self) -> int | None:
        scored = []
        for step in self._steps():
            try:
                metric = manifest.read(self._path(step))["metric"]
            except Damaged:
                continue
            if metric is not None:
                scored.append((self._sign * metric, step))
        return min(scored)[1] if scored else None


def _remove(path: Path) -> None:
    """Removes a checkpoint, its manifest first, so that half a removal never looks like damage."""
    (path / manifest.NAME).unlink(missing_ok=True)
    shutil.rmtree(path)
