"""Caches: keys and values that a row keeps from one forward pass to the next, and the rules of what is recomputed.

In block-causal attention earlier blocks do not depend on later ones, so what was computed for them stays right:
`Exact`. In full attention every token depends on every other, and what is kept grows old. `Prefix` and `Dual`
(Fast-dLLM, arXiv 2505.22618) keep it all the same and are *approximate*. Everything is recomputed when the window
moves on (a position is looked at that was not looked at then), after `refresh` looks, and when a row is taken up again
in its midst. In between, the *block* is recomputed in every look: all positions that were looked at when everything
was, filled or not.
"""

from __future__ import annotations

import re
from typing import ClassVar

import attrs

from mdsample.errors import CacheError


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
class Approximate:
    """For full attention: what is kept grows old, and everything is recomputed now and then."""

    approximate: ClassVar[bool] = True
    name: ClassVar[str]
    #: looks from one computation of everything to the next, at most; `None`: as long as the window stays
    refresh: int | None = attrs.field(default=None, validator=_refresh)

    def __str__(self) -> str:
        """As `read_cache` reads it."""
        return self.name if self.refresh is None else f"{self.name}({self.refresh})"


@attrs.frozen
class Prefix(Approximate):
    """What stands before the block is kept; the block and all after it are recomputed."""

    name: ClassVar[str] = "prefix"


@attrs.frozen
class Dual(Approximate):
    """All is kept but the block, and what was written elsewhere since."""

    name: ClassVar[str] = "dual"


Cache = Exact | Prefix | Dual


def read_cache(text: str) -> Cache | None:
    """The cache of this name: `none`, `exact`, `prefix`, `dual`, the last two with `(refresh)`; `CacheError`."""
    matched = re.fullmatch(r"(none|exact|prefix|dual)(?:\((\d{1,9})\))?", text.strip())
    if matched is None or (matched[2] is not None and matched[1] in ("none", "exact")):
        raise CacheError(
            f"there is no cache {text!r}; write none, exact (block-causal models), or, both approximate, prefix or "
            "dual, with the passes after which everything is recomputed: dual(8)"
        )
    refresh = None if matched[2] is None else int(matched[2])
    match matched[1]:
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


def check_compatible(cache: Cache | None, block: int | None, conditioned: bool = False) -> None:
    """`CacheError` unless the cache suits attention of this kind; `block`, `conditioned` as in `Trunk`."""
    if cache is not None and conditioned and block is None:
        raise CacheError(
            f"this model has no use for the cache {str(cache)!r}: all of a row sees what was predicted in the last "
            "pass, so nothing of a pass is right in the next one"
        )
    if isinstance(cache, Exact) and block is None:
        raise CacheError(
            "the cache 'exact' needs block-causal attention, and this model attends to everything; prefix and dual are "
            "for such models, and approximate"
        )
    if cache is not None and cache.approximate and block is not None:
        raise CacheError(f"the cache {str(cache)!r} is for full attention; this model is block-causal: take exact")
