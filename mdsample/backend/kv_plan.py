"""Which positions a forward pass computes, and which keep their keys and values, for all backends."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, Longs, upto
from mdsample.core.rows import Key, Rows
from mdsample.models.cache import Cache, Exact, Prefix, check_compatible


@attrs.frozen(eq=False)
class Turn:
    """What one look computes; made by `Memory.turn`."""

    #: each row's place in the look before, −1 if it was not there or is begun anew, `[B]`
    source: Longs
    #: positions that are computed, `[B, L]`; the others have their keys and values from before, or nobody sees them
    active: Bools
    rows: Rows
    pasts: tuple[_Row, ...]


@attrs.frozen(eq=False)
class _Row:
    """A row as its keys and values have it."""

    valid: Bools
    #: the tokens from which keys and values were computed, `[L]`; −1 where there are none
    tokens: Ints
    step: int
    #: looks since everything was computed
    age: int
    #: what was asked then
    region: Bools


class Memory:
    """What the keys and values of the last look's rows were computed from. Holds no keys and values itself."""

    def __init__(self, cache: Cache, block: int | None) -> None:
        """`block` as in `Trunk`; raises `CacheError` if the cache does not suit it."""
        check_compatible(cache, block)
        self._cache, self._block = cache, block
        self._rows: dict[Key, tuple[int, _Row]] = {}

    def turn(self, rows: Rows, tokens: Ints, valid: Bools, asked: Bools) -> Turn:
        """Plans a look; arrays `[B, L]`, `asked` where hidden states are wanted. Only `keep` remembers it."""
        plans = [self._row(*of) for of in zip(rows.keys, rows.steps.tolist(), tokens, valid, asked, strict=True)]
        source, active, pasts = zip(*plans, strict=True)
        return Turn(np.array(source), np.stack(active), rows, pasts)

    def keep(self, turn: Turn) -> None:
        """The look was carried out; what is remembered of other rows is forgotten."""
        self._rows = {
            key: (place, past) for place, (key, past) in enumerate(zip(turn.rows.keys, turn.pasts, strict=True))
        }

    def forget(self) -> None:
        """Every row begins anew."""
        self._rows = {}

    def _row(self, key: Key, step: int, tokens: Ints, valid: Bools, asked: Bools) -> tuple[int, Bools, _Row]:
        source, past = self._rows.get(key, (-1, None))
        length = int(np.flatnonzero(valid)[-1]) + 1  # the batch's width is none of a row's business
        tokens, inside, asked_here = tokens[:length], valid[:length], asked[:length]
        if past is not None and not np.array_equal(past.valid, inside):
            source, past = -1, None
        if self._block is not None:
            active, row = self._exactly(past, step, tokens, inside, asked_here)
        else:
            active, row = self._nearly(past, step, tokens, inside, asked_here)
        whole = np.zeros(len(valid), np.bool_)
        whole[:length] = active
        return source, whole, row

    def _exactly(self, past: _Row | None, step: int, tokens: Ints, valid: Bools, asked: Bools) -> tuple[Bools, _Row]:
        assert self._block is not None
        block = upto(len(tokens)) // self._block
        known = np.full(len(tokens), -1, np.int32) if past is None else past.tokens
        changed = valid & (tokens != known)
        first = block[np.argmax(changed)] if changed.any() else len(tokens)
        last = block[np.flatnonzero(asked)[-1]]
        again = valid & (block >= first) & (block <= last)
        # what comes after a block that is computed anew was computed from what that block was before
        kept = np.where((block > last) & (first <= last), -1, known)
        return again | asked, _Row(valid, np.where(again, tokens, kept).astype(np.int32), step, 0, asked)

    def _nearly(self, past: _Row | None, step: int, tokens: Ints, valid: Bools, asked: Bools) -> tuple[Bools, _Row]:
        assert not isinstance(self._cache, Exact)
        limit = self._cache.refresh
        if (
            past is None
            or step != past.step + 1
            or (limit is not None and past.age + 1 >= limit)
            or bool((asked & ~past.region).any())
        ):
            return valid, _Row(valid, tokens.copy(), step, 0, asked)
        active = asked | (valid & (tokens != past.tokens))
        if isinstance(self._cache, Prefix):
            active = valid & (upto(len(tokens)) >= int(np.argmax(active)))
        return active, _Row(valid, np.where(active, tokens, past.tokens), step, past.age + 1, past.region)
