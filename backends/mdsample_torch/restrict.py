"""Restrictions on the device: −inf for the tokens that may not stand somewhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mdsample.backend.refusals import refuse_empty
from mdsample.core.arrays import Ints, any_in_row
from mdsample.core.restriction import Restriction
from mdsample_torch.device import upload

#: if all places share one set that lacks at most this many tokens (the mask, padding), only these are written
_FEW = 4096


def restrict_(scores: Tensor, restriction: Restriction, rows: Ints, positions: Ints) -> None:
    """Writes −inf into `scores [N, V]` where the restriction forbids a token; `rows`, `positions` `[N]` index it.

    Raises `ValueError` naming the first place at which no token may stand.
    """
    used, which = np.unique(restriction.index[rows, positions], return_inverse=True)
    sets = restriction.sets[used]
    refuse_empty(any_in_row(sets)[which], rows, positions)
    forbidden = np.flatnonzero(~sets[0]) if len(sets) == 1 else None
    if forbidden is not None and len(forbidden) <= _FEW:
        scores.index_fill_(1, upload(forbidden, scores.device), -torch.inf)
        return
    allowed = upload(sets, scores.device)[upload(which, scores.device)]
    scores.masked_fill_(~allowed, -torch.inf)
