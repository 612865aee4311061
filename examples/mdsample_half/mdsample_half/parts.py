"""A selection of one's own, and a preset with it."""

from typing import ClassVar, final

import numpy as np

import mdsample
from mdsample.core.arrays import Ints
from mdsample.policy.settings import part, real


@final
@part
class Half(mdsample.Selection):
    """A share of what is on offer, rounded up: a row takes log2 of its blanks passes at `share` 0.5, the default."""

    name: ClassVar[str] = "half"
    share: float = real(default=0.5, above=0, at_most=1, values=(0.1, 0.2, 0.3, 0.5, 0.8))

    def count(self, view: mdsample.View, ranked: mdsample.Ranked) -> Ints:
        """The share of `ranked.number`, `[B]`."""
        return np.ceil(self.share * ranked.number).astype(np.int32)


def halves(share: float = 0.5) -> mdsample.Policy:
    """Lowest entropies first, a share of them in each step."""
    return mdsample.Whole() + mdsample.Entropy() + Half(share)
