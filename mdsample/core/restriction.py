"""Restriction: which tokens may stand where."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints


@attrs.frozen(eq=False)
class Restriction:
    """Which tokens may stand where: position `[b, l]` may hold the tokens of `sets[index[b, l]]`.

    `sets [K, V]` bool, `index [B, L]` int32. `group [B, L]` int32 is −1, or the number of a group of positions that
    constrain one another: after one of them is drawn, the sets of the others are recomputed.
    """

    sets: Bools
    index: Ints
    group: Ints

    def __and__(self, other: Restriction) -> Restriction:
        """Both restrictions at once. A position is in the left group, else in the right one."""
        pairs = self.index.astype(np.int64) * len(other.sets) + other.index
        used, index = np.unique(pairs, return_inverse=True)
        left, right = np.divmod(used, len(other.sets))
        group = np.where(self.group >= 0, self.group, np.where(other.group >= 0, other.group + _GROUPS, -1))
        return Restriction(
            self.sets[left] & other.sets[right],
            index.reshape(pairs.shape).astype(np.int32),
            group.astype(np.int32),
        )


_GROUPS = 1 << 16  # keeps the group numbers of two restrictions apart
