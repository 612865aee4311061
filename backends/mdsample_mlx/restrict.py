"""Restrictions on the device: −inf for the tokens that may not stand somewhere."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mdsample.backend.refusals import refuse_empty
from mdsample.core.arrays import Ints, any_in_row
from mdsample.core.restriction import Restriction
from mdsample_mlx.device import upload, upload_indices


def restricted(scores: mx.array, restriction: Restriction, rows: Ints, positions: Ints) -> mx.array:
    """`scores [N, W]` with −inf where the restriction forbids a token, and beyond the vocabulary.

    `rows`, `positions` `[N]` index it. Raises `ValueError` naming the first place at which no token may stand.
    """
    used, which = np.unique(restriction.index[rows, positions], return_inverse=True)
    sets = restriction.sets[used]
    refuse_empty(any_in_row(sets)[which], rows, positions)
    allowed = upload(np.pad(sets, ((0, 0), (0, scores.shape[1] - sets.shape[1]))))
    return mx.where(allowed if len(sets) == 1 else allowed[upload_indices(which)], scores, -mx.inf)
