"""Which positions a forward pass computes, and which keep their keys and values, for all backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, Longs, arange64
from mdsample.core.rows import Key, Rows
from mdsample.models.cache import Cache, Exact, Prefix, check_compatible

_T = TypeVar("_T")


class PerThread(threading.local, Generic[_T]):
    """Keys and values of each thread for itself: two jobs on one model do not read one another's."""

    def __init__(self, make: Callable[[Cache], _T], cache: Cache | None) -> None:
        """What `make` gives for the cache, made once in every thread, when it first asks."""
        self._make, self._cache = make, cache
        #: those with the fixed text, and with masks in its place
        self.caches = (None, None) if cache is None else (make(cache), make(cache))

    def __reduce__(self) -> tuple[type[PerThread[_T]], tuple[Callable[[Cache], _T], Cache | None]]:
        """A copy of a model, in this process or another, has kept nothing yet."""
        return type(self), (self._make, self._cache)


@attrs.frozen(eq=False)
class Moves:
    """Which rows of the last pass's keys and values go where; all other places are zeros."""

    #: rows of the new arrays, and of the old ones, `[n]`
    to: Longs
    of: Longs
    #: positions that both have
    length: int


@attrs.frozen(eq=False)
class CachePlan:
    """What one pass computes; made by `CachePlanner.plan`."""

    #: each row's place in the pass before, −1 if it was not there or is recomputed, `[B]`
    source: Longs
    #: positions that are computed, `[B, L]`; the others keep their keys and values, or are not seen
    active: Bools
    rows: Rows
    pasts: tuple[_Row, ...]

    def moves(self, old: tuple[int, int], new: tuple[int, int]) -> Moves | None:
        """How arrays of the shape `old` become those of the shape `new` (B or more, and L); `None`: as they are."""
        source = np.pad(self.source, (0, new[0] - len(self.source)), constant_values=-1)
        # what is left of rows that are recomputed is never seen
        if old == new and ((source == arange64(new[0])) | (source < 0)).all():
            return None
        to = np.flatnonzero(source >= 0)
        return Moves(to, source[to], min(old[1], new[1]))


@attrs.frozen(eq=False)
class _Row:
    """A row as its keys and values have it."""

    valid: Bools
    #: the tokens from which keys and values were computed, `[L]`; −1 where there are none
    tokens: Ints
    step: int
    #: passes since everything was computed
    age: int
    #: where hidden states were wanted then
    region: Bools
    #: as in `Views`
    start: int | None = None


class CachePlanner:
    """What the keys and values of the last pass's rows were computed from. Holds no keys and values itself."""

    def __init__(self, cache: Cache, block: int | None, conditioned: bool = False) -> None:
        """`block`, `conditioned` as in `Trunk`; raises `CacheError` if the cache does not suit it."""
        check_compatible(cache, block, conditioned)
        self._cache, self._block, self._conditioned = cache, block, conditioned
        self._rows: dict[Key, list[tuple[int, _Row]]] = {}

    def plan(
        self, rows: Rows, tokens: Ints, valid: Bools, wanted: Bools, start: Sequence[int] | None = None
    ) -> CachePlan:
        """Plans a pass; arrays `[B, L]`, `wanted` where hidden states are, `start [B]` as in `Views`.

        Only `commit` remembers it.
        """
        starts = [None] * len(tokens) if start is None else start
        facts = zip(rows.keys, rows.steps.tolist(), tokens, valid, wanted, starts, strict=True)
        plans = [self._row(*row) for row in facts]
        source, active, pasts = zip(*plans, strict=True)
        return CachePlan(np.array(source), np.stack(active), rows, pasts)

    def commit(self, plan: CachePlan) -> None:
        """The pass was run; what is remembered of other rows is forgotten."""
        self._rows = {}
        for index, (key, past) in enumerate(zip(plan.rows.keys, plan.pasts, strict=True)):
            self._rows.setdefault(key, []).append((index, past))

    def forget(self) -> None:
        """Every row is recomputed."""
        self._rows = {}

    def _row(
        self, key: Key, step: int, tokens: Ints, valid: Bools, wanted: Bools, start: int | None
    ) -> tuple[int, Bools, _Row]:
        length = int(np.flatnonzero(valid)[-1]) + 1  # the batch's width is none of a row's business
        tokens, inside, wanted_inside = tokens[:length], valid[:length], wanted[:length]
        known = self._rows.get(key, ())
        if start is not None:
            known = [(index, _turned(past, start, inside, self._conditioned)) for index, past in known]
        pasts = [(index, past) for index, past in known if np.array_equal(past.valid, inside)]
        # of several texts of the row, the one that this one begins like
        source, past = max(pasts, key=lambda pair: _common(pair[1].tokens, tokens), default=(-1, None))
        if self._block is not None:
            unit = arange64(length) // self._block if start is None else np.minimum(arange64(length), start)
            active, row = _plan_exact(unit, past, step, tokens, inside, wanted_inside)
            row = attrs.evolve(row, start=start)
        else:
            active, row = self._plan_approximate(past, step, tokens, inside, wanted_inside)
        whole = np.zeros(len(valid), np.bool_)
        whole[:length] = active
        return source, whole, row

    def _plan_approximate(
        self, past: _Row | None, step: int, tokens: Ints, valid: Bools, wanted: Bools
    ) -> tuple[Bools, _Row]:
        assert not isinstance(self._cache, Exact)
        limit = self._cache.refresh
        if (
            past is None
            or step != past.step + 1
            or (limit is not None and past.age + 1 >= limit)
            or bool((wanted & ~past.region).any())
        ):
            return valid, _Row(valid, tokens.copy(), step, 0, wanted)
        # a block is recomputed as a whole, as published: what was written in it sees what was written beside it
        active = past.region | (valid & (tokens != past.tokens))
        if isinstance(self._cache, Prefix):
            active = valid & (arange64(len(tokens)) >= int(np.argmax(active)))
        return active, _Row(valid, np.where(active, tokens, past.tokens), step, past.age + 1, past.region)


def _turned(past: _Row, start: int, valid: Bools, conditioned: bool) -> _Row:
    """What is still right of a led row whose block now begins at `start`: nothing of what one of the blocks saw.

    Where a block is `conditioned` on the prediction before, nothing of the block itself either.
    """
    length = len(valid)
    tokens = np.full(length, -1, np.int32)
    tokens[: len(past.tokens)] = past.tokens[:length]
    if past.start is not None and (conditioned or past.start != start):
        tokens[min(past.start, start) :] = -1
    there = valid.copy()
    there[: len(past.valid)] = past.valid[:length]
    return attrs.evolve(past, tokens=tokens, valid=there)


def _plan_exact(
    unit: Longs, past: _Row | None, step: int, tokens: Ints, valid: Bools, wanted: Bools
) -> tuple[Bools, _Row]:
    """`unit [L]`, never falling: the positions that see one another; a position sees all units up to its own."""
    known = np.full(len(tokens), -1, np.int32) if past is None else past.tokens
    changed = valid & (tokens != known)
    first = unit[np.argmax(changed)] if changed.any() else len(tokens)
    last = unit[np.flatnonzero(wanted)[-1]]
    again = valid & (unit >= first) & (unit <= last)
    # what comes after a unit that is recomputed was computed from what that unit was before
    kept = np.where((unit > last) & (first <= last), -1, known)
    return again | wanted, _Row(valid, np.where(again, tokens, kept).astype(np.int32), step, 0, wanted)


def _common(one: Ints, other: Ints) -> int:
    """How many tokens two rows of one length have in common at the beginning."""
    return len(one) if (same := one == other).all() else int(np.argmin(same))
