"""Self-conditioning, for all backends: which tokens see what was predicted in their places the last time.

What is kept of a prediction is the mean embedding at every place, weighed by the probabilities (*soft* embedding):
`d_model` numbers a place, made while the logits pass by, and never the logits. Fixed text in a block is certain, so its
soft embedding is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.backend.host import WantedPlaces
from mdsample.backend.views import Views
from mdsample.core.arrays import Bools, Longs, arange64
from mdsample.models.denoiser import Memory

A = TypeVar("A")
B = TypeVar("B")


@attrs.frozen(eq=False)
class Kept(Generic[A]):
    """What is kept of a prediction: the whole of its `Memory`."""

    #: soft embeddings of its N places, `[N, d]`, on the device
    soft: A
    places: WantedPlaces

    def memories(self) -> list[Memory]:
        """One for each row."""
        return [Memory(self, row) for row in range(len(self.places.number))]


@attrs.frozen(eq=False)
class Signals(Generic[A]):
    """What the T tokens of a pass are joined by; whatever is not named here by nothing, as when a block begins."""

    #: the tokens inside the blocks that are being filled, `[n]` int64
    inside: A
    #: the tokens that are joined by their own embedding, `[n]` int64
    certain: A
    #: what was kept, the tokens that are joined by it, and which of its places each is, `[n]` int64
    recalled: Sequence[tuple[Kept[Any], A, A]]

    def map(self, to: Callable[[A], B]) -> Signals[B]:
        """The same with every array as `to` makes it."""
        recalled = [(kept, to(tokens), to(places)) for kept, tokens, places in self.recalled]
        return Signals(to(self.inside), to(self.certain), recalled)


def signals(seen: Views, active: Bools, opened: Bools, memory: Sequence[Memory | None]) -> Signals[NDArray[np.int64]]:
    """What is recalled in the views of a query; `active [V, L]` as for `packed`, `opened [B, L]` and `memory` its own.

    A block is conditioned only if all of its open positions were predicted the last time; without blocks, the row.
    """
    place, number = arange64(active.shape[1]), np.cumsum(active).reshape(active.shape) - 1
    start: Longs = np.zeros(len(seen.row), np.int64) if seen.start is None else seen.start
    inside = number[active & (place >= start[:, None])]
    certain: list[Longs] = []
    recalled: dict[int, tuple[Kept[Any], list[Longs], list[Longs]]] = {}
    rows: list[int] = seen.row.tolist()
    for view, row in enumerate(rows):
        kept = memory[row] if memory else None
        block = seen.valid[view] & (place >= start[view])
        free = block & opened[row]
        if kept is None or not free.any():
            continue
        then = kept.whole.places.number[kept.row]
        then = np.pad(then, (0, max(0, len(place) - len(then))), constant_values=-1)[: len(place)]
        if (then[free] < 0).any():
            continue
        _, tokens, places = recalled.setdefault(id(kept.whole), (kept.whole, [], []))
        tokens.append(number[view, free])
        places.append(then[free])
        certain.append(number[view, block & ~free])
    parts = [(whole, np.concatenate(tokens), np.concatenate(places)) for whole, tokens, places in recalled.values()]
    return Signals(inside, np.concatenate(certain) if certain else np.zeros(0, np.int64), parts)
