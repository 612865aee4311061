"""Weights as the trunk multiplies with them: read lazily by MLX, one tensor at a time; quantised ones stay packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
from numpy.typing import NDArray

from mdsample.errors import ModelError
from mdsample.models.families.trunk import Trunk
from mdsample.models.weights.checkpoint import Checkpoint
from mdsample.models.weights.piece import AnyPiece, Merged, Packed, Piece
from mdsample.models.weights.pieces import read_any
from mdsample_mlx.device import DTYPES, evaluate, free_memory, upload
from mdsample_mlx.matrix import Affine, Dense, Matrix

#: the vocabulary is padded to a multiple of this many tokens; the CDF is summed in blocks of them
BLOCK = 512


@attrs.frozen(eq=False)
class Weights:
    """By the names of `Trunk.shapes`."""

    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, mx.array]


def read_weights(checkpoint: Checkpoint, device: mx.Device, dtype: str) -> Weights:
    """The checkpoint's tensors as `MlxTrunk` takes them; what is not packed is in `dtype`, routers are in float32.

    Raises `ModelError` if they do not fit into the device's free memory (before anything is read), if a file is
    damaged, and if a weight is not finite, in the file or in `dtype`.
    """
    checkpoint.check_memory(DTYPES[dtype].size, free_memory(device), packed=True)
    files: dict[Path, dict[str, mx.array]] = {}

    def read(piece: Piece) -> mx.array:
        if piece.file not in files:
            opened: Any = mx.load(str(piece.file))
            files[piece.file] = opened
        # taken out, so that what has been read and copied is not kept; rows of a fused tensor are asked for again
        whole = files[piece.file][piece.name] if piece.rows else files[piece.file].pop(piece.name)
        return whole if piece.rows is None else whole[piece.rows[0] : piece.rows[1]]

    matrices: dict[str, Matrix] = {}
    vectors: dict[str, mx.array] = {}
    with mx.stream(device):
        for name, shape in checkpoint.trunk.shapes.items():
            pieces = checkpoint.pieces[name]
            try:
                parts = [
                    [upload(read_any(piece))] if isinstance(piece, Merged) else [*map(read, piece.stored)]
                    for piece in pieces
                ]
                tensor = _matrix(name, parts, pieces, dtype)
                _check(tensor, parts, f"{pieces[0].stored[0].name} in {pieces[0].stored[0].file.name}", dtype)
            except RuntimeError as error:
                raise ModelError(f"{pieces[0].stored[0].file} is damaged: {error}; fetch it again") from error
            if len(shape) == 1:
                vectors[name] = mx.reshape(tensor.arrays[0], shape)
            else:
                matrices[name] = tensor
    return Weights(matrices, vectors)


def from_arrays(trunk: Trunk, arrays: Mapping[str, NDArray[Any]], dtype: str) -> Weights:
    """The same from arrays by the names and shapes of `trunk.shapes`, for tests and benchmarks."""
    tensors = {name: Dense(upload(arrays[name]).astype(_dtype(name, dtype))) for name in trunk.shapes}
    sizes = {name: len(shape) for name, shape in trunk.shapes.items()}
    return Weights(
        {name: _vocabulary(name, matrix) for name, matrix in tensors.items() if sizes[name] > 1},
        {name: matrix.weight for name, matrix in tensors.items() if sizes[name] == 1},
    )


def _matrix(name: str, parts: list[list[mx.array]], pieces: tuple[AnyPiece, ...], dtype: str) -> Matrix:
    """One tensor, evaluated; several pieces are stacked on a new first axis."""
    to = _dtype(name, dtype)
    kinds = {piece.packing if isinstance(piece, Packed) else None for piece in pieces}
    first = pieces[0]
    if len(kinds) == 1 and isinstance(first, Packed) and not _is_router(name):
        words, scales, biases = map(_stacked, zip(*parts, strict=True))
        matrix: Matrix = Affine(words, scales.astype(to), biases.astype(to), first.packing)
    else:
        # a router is small and chooses, and experts that are packed in different ways cannot share one product
        plain = [_unpacked(part, piece, to) for part, piece in zip(parts, pieces, strict=True)]
        matrix = Dense(_stacked(plain))
    matrix = _vocabulary(name, matrix)
    evaluate(*matrix.arrays)
    return matrix


def _stacked(arrays: Sequence[mx.array]) -> mx.array:
    return arrays[0] if len(arrays) == 1 else mx.stack(list(arrays))


def _unpacked(part: list[mx.array], piece: AnyPiece, to: mx.Dtype) -> mx.array:
    if not isinstance(piece, Packed):
        return part[0].astype(to)
    words, scales, biases = part
    of = piece.packing
    return mx.dequantize(
        words, scales.astype(mx.float32), biases.astype(mx.float32), group_size=of.group_size, bits=of.bits
    ).astype(to)


def _vocabulary(name: str, matrix: Matrix) -> Matrix:
    """Embedding and head with as many rows as whole blocks have."""
    return matrix.padded(-(-matrix.rows // BLOCK) * BLOCK) if name in ("embed", "head") else matrix


def _dtype(name: str, dtype: str) -> mx.Dtype:
    # who goes where is decided in float32 whatever the rest is in: a rounded score sends a token to another expert
    return mx.float32 if _is_router(name) else DTYPES[dtype]


def _is_router(name: str) -> bool:
    return name.endswith((".router", ".router_correction", ".router_scale", ".expert_scale"))


def _check(matrix: Matrix, parts: list[list[mx.array]], name: str, dtype: str) -> None:
    """Raises `ModelError` unless all its numbers are finite."""
    if all(map(_finite, matrix.arrays)):
        return
    if all(_finite(array) for part in parts for array in part):
        raise ModelError(f"{name} holds weights that overflow in {dtype}; take bfloat16 or float32")
    raise ModelError(f"{name} holds NaN or infinite weights: the file is damaged; fetch it again")


def _finite(array: mx.array) -> bool:
    return array.dtype == mx.uint32 or bool(mx.isfinite(array).all().item())
