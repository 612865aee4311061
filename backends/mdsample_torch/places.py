"""One forward pass as the device needs it: tokens, masks and indices, made on the host from NumPy arrays."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.arrays import Bools, Ints, Longs, upto
from mdsample.families.trunk import Trunk
from mdsample_torch.device import upload


@attrs.frozen(eq=False)
class Places:
    """B rows of L positions, padded; N places are wanted, at most M in a row."""

    #: `[B, L]` int64; token 0 in padding, so that what stands there has no effect at all
    tokens: Tensor
    #: what queries at all positions see, bool, broadcast to `[B, 1, L · heads / kv heads, L]`; `None`: everything
    mask: Tensor | None
    #: the positions at which the last layer is asked, `[B, M]` int64; short rows repeat their first
    asked: Tensor
    #: what these see
    asked_mask: Tensor | None
    #: where the N places are in `asked`, flat, int64
    wanted: Tensor


def places(trunk: Trunk, tokens: Ints, valid: Bools, wanted: Bools, device: torch.device) -> Places:
    """Arrays `[B, L]`; every row must have a wanted position, and every wanted position be valid."""
    length = int(np.flatnonzero(valid.any(0))[-1]) + 1
    tokens, valid, wanted = tokens[:, :length], valid[:, :length], wanted[:, :length]
    rows, positions = np.nonzero(wanted)
    if trunk.shifted:
        positions = _before(valid)[rows, positions]
    counts = wanted.sum(1)
    starts = np.cumsum(counts) - counts
    most = int(counts.max())
    columns = np.arange(len(rows)) - starts[rows]
    asked = np.repeat(positions[starts][:, None], most, 1)
    asked[rows, columns] = positions
    # in full attention padding is the only thing not seen
    mask = None if valid.all() else valid[:, None]
    asked_mask = mask
    if trunk.block is not None:
        block = np.arange(length) // trunk.block
        mask = _seen(valid, np.broadcast_to(np.arange(length), (1, length)), block)
        asked_mask = _seen(valid, asked, block)
    group = trunk.heads // trunk.kv_heads
    return Places(
        upload(np.where(valid, tokens, 0).astype(np.int64), device),
        _mask(mask, group, device),
        upload(asked, device),
        _mask(asked_mask, group, device),
        upload(rows * most + columns, device),
    )


def _before(valid: Bools) -> Longs:
    """The position of the token before each, or its own if it is its row's first, `[B, L]`."""
    own = upto(valid.shape[1])
    latest = np.maximum.accumulate(np.where(valid, own, -1), axis=1)
    before = np.concatenate([np.full((len(valid), 1), -1), latest[:, :-1]], axis=1)
    return np.where(before < 0, own, before)


def _seen(valid: Bools, queries: Longs, block: Longs) -> Bools:
    """What queries at positions `[B, M]` (or one row for all) see in block-causal attention, `[B, M, L]`."""
    seen = block[None, None] <= block[queries][:, :, None]
    if not valid.all():
        # a query in padding may see nothing; it sees itself, because a softmax over nothing is NaN
        seen = (seen & valid[:, None]) | (np.arange(len(block)) == queries[:, :, None])
    return seen


def _mask(seen: Bools | None, group: int, device: torch.device) -> Tensor | None:
    """`[B, M, L]` once for each query head that shares a key head, as `attend` stacks them."""
    if seen is None:
        return None
    mask = upload(np.ascontiguousarray(seen), device)[:, None]
    return mask if mask.shape[2] == 1 or group == 1 else mask.repeat(1, 1, group, 1)
