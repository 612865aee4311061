"""Restriction: which tokens may stand where."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints
from mdsample.core.language import Span


@attrs.frozen(eq=False)
class Restriction:
    """Which tokens may stand where: position `[b, l]` may hold the tokens of `sets[index[b, l]]`.

    `sets [K, V]` bool, `index [B, L]` int32. The positions of each of `spans` together hold a text of its language; no
    position is in two of them.
    """

    sets: Bools
    index: Ints
    spans: tuple[Span, ...] = ()

    def within(self, other: Restriction) -> Restriction:
        """The sets of both at once; the spans of this one."""
        pairs = self.index.astype(np.int64) * len(other.sets) + other.index
        used, index = np.unique(pairs, return_inverse=True)
        left, right = np.divmod(used, len(other.sets))
        return Restriction(self.sets[left] & other.sets[right], index.reshape(pairs.shape).astype(np.int32), self.spans)
