"""Encodes a split in as many processes as there are cores; the blocks come in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from dlm.core import workers as processes
from dlm.data.block import Block, encode_block
from dlm.data.recipe import Recipe
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Template

BLOCK = 256  # dialogues encoded together
SHARE = 4096  # dialogues that are worth a process: one takes about a second to start


def num_workers(dialogues: int) -> int:
    """Processes that encode so many dialogues: at most one a core, 1 = this one."""
    return processes.num_workers(dialogues, SHARE)


def encode_blocks(
    source: Sequence[Dialogue], template: Template, recipe: Recipe, workers: int
) -> Iterator[Block]:
    """Yields the blocks of a split in order.

    Args:
      source: the dialogues; can be pickled where there are several workers, as can the template.
      template: how they are written out.
      recipe: the rest of what decides them.
      workers: processes; 1 = this one.

    Raises:
      UserError: what encoding a dialogue raised.
      RuntimeError: a process ended before its work was done.
    """
    work = partial(_block, source, template, recipe)
    count = -(-len(source) // BLOCK)
    return processes.in_order(work, count, workers, f"encodes {recipe.split}")


def _block(source: Sequence[Dialogue], template: Template, recipe: Recipe, number: int) -> Block:
    span = range(number * BLOCK, min((number + 1) * BLOCK, len(source)))
    return encode_block(source, span, template, recipe)
