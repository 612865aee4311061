"""Window: which blanks are on offer now?"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools, Ints
from mdsample.policy.base import Part, Seat
from mdsample.policy.settings import integer, part
from mdsample.policy.view import Batch

#: size of a block where neither policy nor model says one, tokens
BLOCK = 32


class Window(Part):
    """Decides which blanks may be filled in this step, before the model is asked."""

    __slots__ = ()
    seat: ClassVar[Seat] = "window"

    @abc.abstractmethod
    def eligible(self, batch: Batch) -> Bools:
        """`[B, L]`, true for blanks on offer. The loop intersects it with the blanks; if it offers none in a row,
        all of that row's blanks are on offer, so that every run ends."""

    def misfit(self, block: int) -> str:
        """Why it does not fit a model that sees a row in blocks of `block` positions, and the remedy; empty if it does.

        Default: it does.
        """
        return ""


@final
@part
class Whole(Window):
    """Every blank of the row is on offer.

    Free order over a whole text tends to write end tokens and the answer before the reasoning (arXiv 2510.19990,
    table 1: GSM8K 53.4 % against 77.0 % with blocks of 32).
    """

    name: ClassVar[str] = "whole"

    def eligible(self, batch: Batch) -> Bools:
        """All blanks."""
        return batch.blank


@final
@part
class Blocks(Window):
    """Blocks of `size` from left to right; the first block with a blank is on offer.

    Also called semi-autoregressive. Without a size: of a model that was trained in blocks (SDAR, LLaDA2) its own, else
    32, with which LLaDA, Fast-dLLM and MED publish (arXiv 2505.22618, 2510.19990). A model's own blocks, and whole
    multiples of them or equal parts, are counted from the beginning of the row, as in training, or from its first open
    position (Nemotron-Labs-Diffusion); on other models blocks run over the row's open positions, slots counting on
    without a break. Unit: tokens.
    """

    name: ClassVar[str] = "blocks"
    size: int | None = integer(default=None, at_least=1, optional=True)

    def eligible(self, batch: Batch) -> Bools:
        """The blanks of the first unfinished block."""
        return _first(batch, _count(batch) // (self.size or batch.block or BLOCK))

    def misfit(self, block: int) -> str:
        """A block that ends inside one of the model's."""
        size = self.size or block
        return "" if block % size == 0 else _misfit(self.name, size, block)


@final
@part
class RowBlocks(Window):
    """Blocks of `size` that are counted from the beginning of the row, whatever the model.

    So the first block on offer may hold the end of the prompt, and is then shorter: dInfer's `start_block_align`, which
    its evaluation and benchmarks set. On a model that was trained in blocks `blocks` counts so by itself. Unit: tokens.
    Default 32.
    """

    name: ClassVar[str] = "row-blocks"
    size: int = integer(default=BLOCK, at_least=1)

    def eligible(self, batch: Batch) -> Bools:
        """The blanks of the first unfinished block."""
        place = np.arange(batch.blank.shape[1], dtype=np.int32)[None]
        return _first(batch, np.broadcast_to(place // np.int32(self.size), batch.blank.shape))

    def misfit(self, block: int) -> str:
        """A block that ends inside one of the model's."""
        return "" if block % self.size == 0 else _misfit(self.name, self.size, block)


@final
@part
class LedBlocks(Window):
    """Blocks of the model's own, each its first place by itself and then in parts of `size` from left to right.

    Fast-dLLM v2's sub-blocks (arXiv 2509.26328): its logits are shifted, so the first place of a block is read in the
    block before and sees nothing of its own; the others then see it. With 32, Nemotron-Labs-Diffusion's blocks. A model
    without blocks has blocks of 32. Unit: tokens. Default 8, as there.
    """

    name: ClassVar[str] = "led-blocks"
    size: int = integer(default=8, at_least=1)

    def eligible(self, batch: Batch) -> Bools:
        """The blanks of the first unfinished part of the first unfinished block."""
        whole = batch.block or BLOCK
        block, place = np.divmod(_count(batch), np.int32(whole))
        part = np.where(place == 0, 0, 1 + place // self.size)
        return _first(batch, block * (1 + -(-whole // self.size)) + part)


@final
@part
class Dilated(Window):
    """Blocks of `size`, each in rounds of places far apart; the first round with a blank is on offer.

    Round t = 1, 2, … holds every ⌊size / base^t⌋-th place of the block that no earlier round has, from the first on;
    the last holds the rest. With size 8 and base 2, counted from 1: 1 5, then 3 7, then 2 4 6 8. Places far apart
    depend less on one another, so `steps(1)` fills a round at once (DUS, arXiv 2506.19037); a selection that looks,
    such as `entropy-bound`, leaves a round's uncertain places for the next pass. Blocks are counted as in `blocks`.
    Unit: tokens. Defaults 32 and 2.
    """

    name: ClassVar[str] = "dilated"
    size: int = integer(default=32, at_least=1)
    base: int = integer(default=2, at_least=2, kw_only=True)

    def eligible(self, batch: Batch) -> Bools:
        """The blanks of the first unfinished round of the first unfinished block."""
        block, place = np.divmod(_count(batch), self.size)
        strides = [self.size // self.base]
        while strides[-1] > 1:
            strides.append(strides[-1] // self.base)
        later = np.logical_and.accumulate([place % max(stride, 1) > 0 for stride in strides])
        return _first(batch, block * len(strides) + later.sum(0, dtype=np.int32))

    def misfit(self, block: int) -> str:
        """A block that ends inside one of the model's."""
        return _misfit(self.name, self.size, block)


def _count(batch: Batch) -> Ints:
    """The number that blocks go by, of each position `[B, L]`."""
    if batch.block is None:
        return batch.open_index
    place = np.arange(batch.blank.shape[1], dtype=np.int32)[None]
    # what stands before the first block is never on offer
    first = batch.initially_blank.argmax(1).astype(np.int32)[:, None] if batch.led else 0
    return np.broadcast_to(place - first, batch.blank.shape)


def _misfit(name: str, size: int, block: int) -> str:
    if size % block == 0:
        return ""
    return (
        f"{name}({size}) does not fit a model that was trained in blocks of {block}: a position would be filled before "
        f"the block that it is in is on offer; take {block} or a multiple of it (with blocks: or an equal part of it), "
        "or leave the number of blocks() out"
    )


def _first(batch: Batch, group: Ints) -> Bools:
    """The blanks of the lowest-numbered group `[B, L]` that has any."""
    first = np.where(batch.blank, group, np.iinfo(np.int32).max).min(1, keepdims=True)
    return batch.blank & (group == first)
