"""What every position of a row sees, for all backends: a place up to which it sees everything, itself included.

In full attention that is the row's end, in block-causal attention the end of the position's block.

A *led* trunk (Nemotron-Labs-Diffusion) sees a row as it is while one of its blocks is being filled: what stands before
the block was computed causally, the block sees all of that and itself, and what comes after it is not there yet. Blocks
are counted from the row's first open position. As long as nothing stands in a block behind its first place, that place
is the next token of the causal pass, read in the place before it; so the published loop begins every block. Otherwise
that would miss what stands there, and the place is read where it is, as all others are. A row of which several blocks
are wanted at once is run once for each of them. DiffusionGemma sees a row so, too, but reads every place where it is;
some of its layers see a *window* only.
"""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, Longs, any_in_row, arange64
from mdsample.models.families.trunk import Trunk


@attrs.frozen(eq=False)
class Views:
    """V rows as they are run, each of which has a wanted position; arrays `[V, L]` unless said."""

    #: the row of the query that each is, `[V]`, ascending
    row: Longs
    tokens: Ints
    valid: Bools
    #: places whose logits are wanted; row by row they are those of the query in its order
    wanted: Bools
    #: of a led trunk, the first position of the block that is being filled, `[V]`; `None`: other trunks
    start: Longs | None
    #: whether that one is read in the place before it, `[V]`
    leading: Bools | None


def views(trunk: Trunk, tokens: Ints, valid: Bools, wanted: Bools, opened: Bools | None) -> Views:
    """The rows of a query that are run, arrays `[B, L]`: those where something is wanted.

    `opened`: positions that were open when the row began; only a led trunk asks. `None`: the wanted ones.
    """
    if not trunk.led:
        row = np.flatnonzero(any_in_row(wanted))
        return Views(row, tokens[row], valid[row], wanted[row], None, None)
    assert trunk.block is not None
    opened = wanted if opened is None else opened & valid
    length = wanted.shape[1]
    first: Longs = opened.argmax(1)
    origin: Longs = np.where(any_in_row(opened), first, np.int64(length))
    # −1 before the first block
    block = np.maximum((arange64(length) - origin[:, None]) // trunk.block, -1)
    row, number = np.unique(np.stack([np.nonzero(wanted)[0], block[wanted]]), axis=1)
    start = origin[row] + np.maximum(number, 0) * trunk.block
    place, text = arange64(length)[None], tokens[row]
    there = valid[row] & (place < start[:, None] + trunk.block)
    inside = wanted[row] & (block[row] == number[:, None])
    if trunk.gemma is not None:
        return Views(row, text, there, inside, start, np.zeros(len(row), np.bool_))
    behind = there & (place > start[:, None]) & (text != trunk.mask_id)
    return Views(row, text, there, inside, start, ~any_in_row(behind))


def sight(trunk: Trunk, start: Longs | None, length: int) -> Longs | None:
    """The last position that each of `length` positions sees, `[V or 1, length]`; `None`: all see everything."""
    if trunk.block is None:
        return None
    own = arange64(length)[None]
    if start is None:
        return (own // trunk.block + 1) * trunk.block - 1
    return np.where(own < start[:, None], own, start[:, None] + trunk.block - 1)


def horizon(trunk: Trunk, start: Longs | None, length: int) -> Longs | None:
    """The first position that each of `length` positions sees in layers with a window, `[V, length]`.

    `None`: there are no such layers.
    """
    if trunk.gemma is None or start is None:
        return None
    own = arange64(length)[None]
    # a block sees as far back as what is kept of a context of which the next token is the block's first
    return np.minimum(own, start[:, None]) - trunk.gemma.window + 1


def hidden_positions(trunk: Trunk, seen: Views) -> tuple[Longs, Longs]:
    """Rows and positions of the hidden states from which the wanted places' logits are read, `[N]`, row by row."""
    rows, positions = np.nonzero(seen.wanted)
    if seen.start is not None and seen.leading is not None:
        led = seen.leading[rows] & (positions == seen.start[rows])
        return rows, np.where(led, _before(seen.valid)[rows, positions], positions)
    return rows, _before(seen.valid)[rows, positions] if trunk.shifted else positions


def _before(valid: Bools) -> Longs:
    """The position of the token before each, or its own if it is its row's first, `[V, L]`."""
    own = arange64(valid.shape[1])
    latest = np.maximum.accumulate(np.where(valid, own, -1), axis=1)
    before = np.concatenate([np.full((len(valid), 1), -1), latest[:, :-1]], axis=1)
    return np.where(before < 0, own, before)
