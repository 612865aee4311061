"""Credits: what rows remember of tokens that were the best of a position in earlier passes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Floats, Indices, Ints


@attrs.frozen(eq=False)
class Credits:
    """Of B rows, the few tokens with credit at each position; a row's columns do not depend on the other rows."""

    #: where credit counts in this pass, and is earned, `[B, L]`
    here: Bools
    #: at most K tokens with credit a position, −1 in the other columns, `[B, L, K]`
    token: Ints
    #: their credit, 0 in the other columns, `[B, L, K]`
    amount: Floats

    def take(self, rows: Indices, width: int) -> Credits:
        """Some of its rows, their first `width` positions, without columns that are empty in all of them."""
        token = self.token[rows, :width]
        used = int((token >= 0).any((0, 1)).sum())
        return Credits(self.here[rows, :width], token[:, :, :used], self.amount[rows, :width, :used])

    @staticmethod
    def none(rows: int) -> Credits:
        """Nothing, for so many rows."""
        return Credits(
            np.zeros((rows, 0), np.bool_), np.zeros((rows, 0, 0), np.int32), np.zeros((rows, 0, 0), np.float32)
        )

    @staticmethod
    def joined(parts: Sequence[Credits], width: int) -> Credits:
        """All rows of several, one after the other, padded or cut to `width` positions."""
        columns = max((part.token.shape[2] for part in parts), default=0)
        shape = (sum(len(part.token) for part in parts), width)
        out = Credits(
            np.zeros(shape, np.bool_),
            np.full((*shape, columns), -1, np.int32),
            np.zeros((*shape, columns), np.float32),
        )
        first = 0
        for part in parts:
            rows, length, used = part.token.shape
            there = (slice(first, first + rows), slice(min(length, width)))
            out.here[there] = part.here[:, :width]
            out.token[there][:, :, :used] = part.token[:, :width]
            out.amount[there][:, :, :used] = part.amount[:, :width]
            first += rows
        return out
