"""Caches: keys and values that a row keeps from one forward pass to the next, and the rules of what is computed anew.

In block-causal attention earlier blocks do not depend on later ones, so what was computed for them stays right:
`Exact`. In full attention every token depends on every other, and what is kept grows old. `Prefix` and `Dual`
(Fast-dLLM, arXiv 2505.22618) keep it all the same and are *approximate*; everything is computed anew when the window
moves on (a position is looked at that was not looked at then), after `refresh` looks, and when a row is taken up again
in its midst.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import attrs
import numpy as np

from mdsample.arrays import Bools, Ints, Longs, upto
from mdsample.errors import CacheError

#: what names a row from look to look
Key = tuple[int, int]


def _refresh(_: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise CacheError(f"a cache's {attribute.name} must be a positive whole number of looks; got {value!r}")


@attrs.frozen
class Exact:
    """For block-causal models: blocks are computed again only if a token in them or before them changed."""

    approximate: ClassVar[bool] = False

    def __str__(self) -> str:
        """As `read_cache` reads it."""
        return "exact"


@attrs.frozen
class Prefix:
    """For full attention, approximate: what stands before the first blank looked at, or written since, is kept."""

    approximate: ClassVar[bool] = True
    #: looks from one computation of everything to the next, at most; `None`: as long as the window stays
    refresh: int | None = attrs.field(default=None, validator=_refresh)

    def __str__(self) -> str:
        """As `read_cache` reads it."""
        return "prefix" if self.refresh is None else f"prefix({self.refresh})"


@attrs.frozen
class Dual:
    """For full attention, approximate: all is kept but the blanks looked at and what was written since."""

    approximate: ClassVar[bool] = True
    #: as `Prefix`
    refresh: int | None = attrs.field(default=None, validator=_refresh)

    def __str__(self) -> str:
        """As `read_cache` reads it."""
        return "dual" if self.refresh is None else f"dual({self.refresh})"


Cache = Exact | Prefix | Dual


def read_cache(text: str) -> Cache | None:
    """The cache of this name: `none`, `exact`, `prefix`, `dual`, the last two with `(refresh)`; `CacheError`."""
    found = re.fullmatch(r"(none|exact|prefix|dual)(?:\((\d{1,9})\))?", text.strip())
    if found is None or (found[2] is not None and found[1] in ("none", "exact")):
        raise CacheError(
            f"there is no cache {text!r}; write none, exact (block-causal models), or, both approximate, prefix or "
            "dual, with the looks after which all is computed anew if you like: dual(8)"
        )
    refresh = None if found[2] is None else int(found[2])
    match found[1]:
        case "exact":
            return Exact()
        case "prefix":
            return Prefix(refresh)
        case "dual":
            return Dual(refresh)
        case _:
            return None


def cache_text(cache: Cache | None) -> str:
    """What `read_cache` reads as this cache."""
    return "none" if cache is None else str(cache)


def suit(cache: Cache | None, block: int | None) -> None:
    """`CacheError` unless the cache suits attention of this kind; `block` as in `Trunk`."""
    if isinstance(cache, Exact) and block is None:
        raise CacheError(
            "the cache 'exact' needs block-causal attention, and this model attends to everything; prefix and dual are "
            "for such models, and approximate"
        )
    if cache is not None and cache.approximate and block is not None:
        raise CacheError(f"the cache {str(cache)!r} is for full attention; this model is block-causal: take exact")


@attrs.frozen(eq=False)
class Rows:
    """The B rows of a look, as a cache tells them apart; all different."""

    keys: Sequence[Key]
    #: looks that each had before, `[B]`
    steps: Ints

    def only(self, some: Bools) -> Rows:
        """Those where `some [B]` is true."""
        return Rows([key for key, yes in zip(self.keys, some.tolist(), strict=True) if yes], self.steps[some])


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
        suit(cache, block)
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
