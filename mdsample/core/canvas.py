"""Canvas: a batch of token rows on their way from blanks to text."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex, cast

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Indices, Ints


def _identities(ids: Sequence[object]) -> tuple[int | str, ...]:
    # randomness hangs on the type too, so a NumPy integer must become the number that it is
    return tuple(str(name) if isinstance(name, str) else operator.index(cast("SupportsIndex", name)) for name in ids)


@attrs.frozen(eq=False)
class Canvas:
    """Rows to fill; arrays `[B, L]`. What is blank is marked by position, never by the value of a token.

    So a mask token that stands in fixed text is text like any other, and a mask id of 0 is as good as any.
    Shorter rows are padded at the end (`valid` false).
    """

    #: int32; the mask token in blanks
    tokens: Ints
    #: positions to fill
    blank: Bools
    #: number of the slot a position belongs to (pre-filled positions of a slot too), −1 for fixed text
    slot: Ints
    #: belongs to the row; false in padding
    valid: Bools
    #: slot names; `slot` indexes them
    names: tuple[str, ...]
    #: one identity per row: randomness and resuming are keyed by it
    ids: tuple[int | str, ...] = attrs.field(converter=_identities)

    def __attrs_post_init__(self) -> None:
        """Checks shapes and identities."""
        shapes = {a.shape for a in (self.tokens, self.blank, self.slot, self.valid)}
        if len(shapes) != 1 or self.tokens.ndim != 2:
            raise ValueError(f"a canvas needs four arrays of one shape [rows, positions]; got {sorted(shapes)}")
        if len(self.ids) != len(self.tokens):
            raise ValueError(f"a canvas of {len(self.tokens)} rows needs as many ids; got {len(self.ids)}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("row ids must differ: randomness is keyed by them")
        if (self.blank & ~self.valid).any():
            raise ValueError("padding cannot be blank")
        if (self.valid[:, 1:] & ~self.valid[:, :-1]).any():
            raise ValueError("padding must stand at the end of a row")
        if (self.blank & (self.slot < 0)).any():
            raise ValueError("a blank must belong to a slot")
        if (self.slot >= len(self.names)).any():
            raise ValueError(f"slot numbers must lie below {len(self.names)}, the number of slot names")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    def slot_length(self, name: str) -> int:
        """Positions of a slot, the fewest over rows; 0 without rows."""
        return min((self.slot == self.names.index(name)).sum(1).tolist(), default=0)

    def take(self, rows: Sequence[int]) -> Canvas:
        """Some of the rows, without padding that none of them needs."""
        index = np.array(rows, dtype=np.int64)
        width = int(self.valid[index].sum(1).max(initial=1))
        return Canvas(
            self.tokens[index, :width],
            self.blank[index, :width],
            self.slot[index, :width],
            self.valid[index, :width],
            self.names,
            tuple(self.ids[row] for row in rows),
        )

    def copies(self, rows: Indices) -> Canvas:
        """Rows of the canvas, some of them several times; their ids are numbers from 0."""
        tokens, blank, slot, valid = self.tokens[rows], self.blank[rows], self.slot[rows], self.valid[rows]
        return Canvas(tokens, blank, slot, valid, self.names, tuple(range(len(rows))))

    @staticmethod
    def of_rows(
        rows: Sequence[Sequence[int]],
        slots: Sequence[Sequence[int]],
        names: tuple[str, ...],
        mask_id: int,
        ids: Sequence[int | str] | None = None,
        blank: Sequence[Sequence[bool]] | None = None,
    ) -> Canvas:
        """Rows of unequal length, padded at the end. Unless `blank` says otherwise, slot positions are blank."""
        length = max((len(row) for row in rows), default=0)
        shape = (len(rows), length)
        tokens = np.full(shape, mask_id, np.int32)
        slot = np.full(shape, -1, np.int32)
        valid = np.zeros(shape, np.bool_)
        empty = np.zeros(shape, np.bool_)
        for i, (row, where) in enumerate(zip(rows, slots, strict=True)):
            tokens[i, : len(row)] = row
            slot[i, : len(row)] = where
            valid[i, : len(row)] = True
            empty[i, : len(row)] = np.asarray(where) >= 0 if blank is None else blank[i]
        tokens[empty] = mask_id
        return Canvas(tokens, empty, slot, valid, names, tuple(range(len(rows)) if ids is None else ids))
