"""Pieces of a checkpoint as float32 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Floats
from mdsample.errors import ModelError
from mdsample.models.weights.piece import AnyPiece, Change, LowRank, Merged, Packed, Piece, Shift
from mdsample.models.weights.quantised import dequantise

# as the format stores them
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_any(piece: AnyPiece) -> Floats:
    """A piece in float32, unpacked or merged; `ModelError` that names it if one of its weights is not finite."""
    match piece:
        case Piece():
            return read_piece(piece)
        case Packed(words, scales, biases, packing):
            packed = np.memmap(words.file, "<u4", "r", words.offset, words.shape)
            return dequantise(packed, read_piece(scales), read_piece(biases), packing)
        case Merged():
            return _merged(piece)


def read_piece(piece: Piece) -> Floats:
    """A piece in float32; `ModelError` that names it if one of its weights is not finite."""
    stored = np.memmap(piece.file, _STORED[piece.dtype], "r", piece.offset, piece.shape)
    weights = np.require(_float32(stored, piece.dtype), requirements="A")  # a file need not align its tensors
    if (bad := _not_finite(weights)) is not None:
        raise ModelError(
            f"the weights in {piece.file.parent} are damaged: {piece.name} is {weights[bad]} at {list(bad)}; "
            "fetch them again"
        )
    return weights


def as_stored(values: Floats, dtype: str) -> NDArray[np.generic]:
    """Values as a file has them, F32, F16 or BF16, little-endian; to the nearest, ties to even."""
    if dtype != "BF16":
        return values.astype(_STORED[dtype])
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype("<u2")


def _float32(stored: NDArray[Any], dtype: str) -> Floats:
    if dtype != "BF16":
        return np.asarray(stored).astype(np.float32, copy=False)
    # bfloat16 is the upper half of a float32
    values = stored.astype(np.uint32)
    values <<= 16
    return values.view(np.float32)


def _not_finite(weights: Floats) -> tuple[int, ...] | None:
    """Where the first value is that is not finite; `None` if there is none."""
    # the sum of finite numbers is finite unless it overflows; only then is every number looked at
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(weights.sum())
    if suspicious and not np.isfinite(weights).all():
        return tuple(int(i) for i in np.argwhere(~np.isfinite(weights))[0])
    return None


def _merged(piece: Merged) -> Floats:
    """In float32, rounded to the type that the model has it in."""
    index, first = piece.changes[0]
    # what is replaced as a whole need not be read
    weights = read_piece(first if index is None and isinstance(first, Piece) else piece.base)
    with np.errstate(all="ignore"):  # what comes of it is looked at below
        for index, change in piece.changes:
            if index is None:
                weights = _changed(weights, change)
            else:
                weights = weights.copy()
                weights[index] = _changed(weights[index], change)
        weights = _float32(as_stored(weights, piece.dtype), piece.dtype)
    if (bad := _not_finite(weights)) is not None:
        raise ModelError(
            f"{piece.base.name} is {weights[bad]} at {list(bad)} once the adapter is merged into it, in {piece.dtype}; "
            "the adapter was made for another model, or is damaged"
        )
    return weights


def _changed(weights: Floats, change: Change) -> Floats:
    match change:
        case Piece():
            return read_piece(change)
        case LowRank():
            total: Floats = read_piece(change.b) @ read_piece(change.a)
            total = total.T if change.transposed else total
            total *= np.float32(change.scale)
            total += weights
            if change.magnitude is not None:
                axis = 0 if change.transposed else 1
                lengths: Floats = np.linalg.norm(total, axis=axis, keepdims=True)
                total *= np.expand_dims(read_piece(change.magnitude), axis) / lengths
            return total
        case Shift():
            shift: Floats = read_piece(change.values) * np.float32(change.scale)
            return weights + shift
