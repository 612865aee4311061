"""Pieces of a checkpoint as float32 arrays."""

from __future__ import annotations

import numpy as np

from mdsample.core.arrays import Floats
from mdsample.errors import ModelError
from mdsample.models.checkpoint import Piece

# as the format stores them
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_piece(piece: Piece) -> Floats:
    """A piece in float32; `ModelError` that names it if one of its weights is not finite."""
    stored = np.memmap(piece.file, _STORED[piece.dtype], "r", piece.offset, piece.shape)
    if piece.dtype == "BF16":
        # bfloat16 is the upper half of a float32
        values = stored.astype(np.uint32)
        values <<= 16
        weights: Floats = values.view(np.float32)
    else:
        weights = np.asarray(stored).astype(np.float32, copy=False)
        weights = np.require(weights, requirements="A")  # a file need not align its tensors
    # the sum of finite numbers is finite unless it overflows; only then is every number looked at
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(weights.sum())
    if suspicious and not np.isfinite(weights).all():
        place = np.argwhere(~np.isfinite(weights))[0]
        raise ModelError(
            f"the weights in {piece.file.parent} are damaged: {piece.name} is {weights[tuple(place)]} at "
            f"{place.tolist()}; fetch them again"
        )
    return weights
