"""Self-conditioning in the loop: what a model kept of a row's last prediction goes into the row's next query.

It is evidence that no part reads. A block's memory is whole or none, so whatever a policy asks for, all open positions
of the blocks that it is in are predicted. When the window moves to another block, nothing is known of that yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, final

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools, Ints, any_in_row, arange64
from mdsample.models.denoiser import Memory, Prediction, Remembering
from mdsample.policy.view import Batch, Evidence, Seen


@final
@attrs.frozen
class Conditioning(Evidence):
    """What a self-conditioned model keeps of each row; its value is empty, `[B, 0]`."""

    @property
    def depth(self) -> int:
        """1: what was kept before is in the last prediction; what was lost goes back to the block's beginning."""
        return 1

    def value(self, seen: Seen) -> NDArray[Any]:
        """Nothing."""
        return np.zeros((len(seen.before), 0))

    def remembered(self, seen: Seen, value: NDArray[Any]) -> Sequence[Memory]:
        """The model's own, on the device."""
        return memories(seen.prediction)


CONDITIONING = Conditioning()


def memories(prediction: object) -> Sequence[Memory]:
    """Of each row, what a self-conditioned model kept of this prediction."""
    return cast("Remembering", prediction).memories


def memory_of(before: Sequence[Any]) -> list[Memory | None]:
    """`Query.memory` from what evidence kept of each row."""
    return [row.get(CONDITIONING) for row in before]


def trial_memory(prediction: Prediction, line: Ints) -> list[Memory]:
    """That of texts tried out, each a variant of a row `line [T]`: a trial is what the row's next pass might be."""
    kept, lines = memories(prediction), cast("list[int]", line.tolist())
    return [kept[row] for row in lines]


def blocks_asked(batch: Batch, wanted: Bools) -> list[set[int]]:
    """Of each row, the numbers of the blocks all of whose open positions are `wanted [B, L]`."""
    number, opened = _numbers(batch), batch.initially_blank
    return [
        {*row[opened[line]].tolist()} - {*row[opened[line] & ~wanted[line]].tolist()} for line, row in enumerate(number)
    ]


def whole_blocks(batch: Batch, where: Bools) -> Bools:
    """All positions that were open in the blocks that `where [B, L]` is in."""
    number, out = _numbers(batch), np.zeros_like(where)
    for row in np.flatnonzero(any_in_row(where)):
        out[row] = batch.initially_blank[row] & np.isin(number[row], number[row][where[row]])
    return out


def _numbers(batch: Batch) -> Ints:
    """The number of each position's block, `[B, L]`."""
    rows, length = batch.tokens.shape
    first = batch.initially_blank.argmax(1)[:, None] if batch.led else np.zeros((rows, 1), np.int64)
    return ((arange64(length)[None] - first) // (batch.block or length)).astype(np.int32)
