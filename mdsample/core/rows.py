"""Rows: what names a row from one forward pass to the next."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mdsample.core.arrays import Ints, Longs

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

    def take(self, which: Longs) -> Rows:
        """Those of these numbers `[n]`; one that is taken several times is not told apart."""
        numbers: list[int] = which.tolist()
        return Rows([self.keys[number] for number in numbers], self.steps[which])
