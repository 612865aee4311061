"""Rows: what names a row from one forward pass to the next."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mdsample.core.arrays import Bools, Ints

#: what names a row from look to look
Key = tuple[int, int]


@attrs.frozen(eq=False)
class Rows:
    """The B rows of a look, as a cache tells them apart.

    Rows under one key are texts that one row may have, guesses beside it: what is kept of any of them serves them all.
    """

    keys: Sequence[Key]
    #: looks that each had before, `[B]`
    steps: Ints

    def only(self, which: Bools) -> Rows:
        """Those where `which [B]` is true."""
        return Rows([key for key, yes in zip(self.keys, which.tolist(), strict=True) if yes], self.steps[which])
