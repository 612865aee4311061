"""Window: which blanks are on offer now?"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import attrs
import numpy as np

from mdsample.arrays import Bools
from mdsample.part import Part, Seat, integer
from mdsample.view import Board


class Window(Part):
    """Decides which blanks may be filled in this step, before the model is asked."""

    __slots__ = ()
    seat: ClassVar[Seat] = "window"

    @abc.abstractmethod
    def eligible(self, board: Board) -> Bools:
        """`[B, L]`, true for blanks on offer. The loop intersects it with the blanks; if it offers none in a row,
        all of that row's blanks are on offer, so that every run ends."""


@final
@attrs.frozen
class Whole(Window):
    """Every blank of the row is on offer.

    Free order over a whole text tends to write end tokens and the answer before the reasoning (arXiv 2510.19990,
    table 1: GSM8K 53.4 % against 77.0 % with blocks of 32).
    """

    name: ClassVar[str] = "whole"

    def eligible(self, board: Board) -> Bools:
        """All blanks."""
        return board.blank


@final
@attrs.frozen
class Blocks(Window):
    """The row's open positions in blocks of `size` from left to right; the first block with a blank is on offer.

    Also called semi-autoregressive. Slots count on without a break: blocks run over all open positions of the row.
    Unit: tokens. Default 32: LLaDA, Fast-dLLM and MED publish with it (arXiv 2505.22618, 2510.19990).
    """

    name: ClassVar[str] = "blocks"
    size: int = integer(32, at_least=1)

    def eligible(self, board: Board) -> Bools:
        """The blanks of the first unfinished block."""
        block = board.place // self.size
        first = np.where(board.blank, block, np.iinfo(np.int32).max).min(1, keepdims=True)
        return board.blank & (block == first)
