"""Weights on their device: files are mapped into memory and copied piece by piece to where the trunk multiplies.

Tensors that share an input are rows of one matrix (`qkv`, `gate_up`): one large product is faster than three. They
are allocated so and filled in place, so that nothing is ever there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mdsample.errors import ModelError
from mdsample.models.families.trunk import Trunk
from mdsample.models.weights.checkpoint import Checkpoint
from mdsample.models.weights.piece import Merged, Packed, Piece
from mdsample.models.weights.pieces import read_any
from mdsample.models.weights.quantised import Packing, dequantise
from mdsample_torch.device import free_memory, upload

#: the vocabulary is padded to a multiple of this many tokens; maxima and sums are taken in blocks of them
BLOCK = 512
_JOINED = {"qkv": ("q", "k", "v"), "qkv_bias": ("q_bias", "k_bias", "v_bias"), "gate_up": ("gate", "up")}
# who goes where is decided in float32 whatever the rest is in: a rounded score sends a token to another expert
_FLOAT32 = ("router", "router_correction", "router_scale", "expert_scale")


def read_weights(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The checkpoint's tensors as `TorchTrunk` takes them.

    Raises `ModelError` if they do not fit into the device's free memory (before anything is read), if a file is
    damaged, and if a weight is not finite, in the file or in `dtype`.
    """
    return _read_all(checkpoint, device, dtype)[0]


def read_parts(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The checkpoint's tensors by the names and shapes of `trunk.shapes`; errors as `read_weights`."""
    return _read_all(checkpoint, device, dtype)[1]


def _read_all(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    checkpoint.check_memory(dtype.itemsize, free_memory(device))
    whole, parts = _empty(checkpoint.trunk, device, dtype)
    with ExitStack() as stack:
        files: dict[Path, Any] = {}

        def read(piece: Piece) -> Tensor:
            try:
                if piece.file not in files:
                    files[piece.file] = stack.enter_context(safe_open(piece.file, framework="pt", device="cpu"))
                return _read(files[piece.file], piece)
            except SafetensorError as error:
                raise ModelError(f"{piece.file} is damaged: {error}; fetch it again") from error

        for name, pieces in checkpoint.pieces.items():
            for number, piece in enumerate(pieces):
                # several pieces are stacked on a new first axis
                place = parts[name] if piece.shape == tuple(parts[name].shape) else parts[name][number]
                if isinstance(piece, Merged):
                    tensor = upload(read_any(piece), torch.device("cpu"))
                else:
                    tensor, *scales = map(read, piece.stored)
                    if isinstance(piece, Packed):
                        tensor = _unpacked(piece.packing, tensor, *scales)
                _copy(tensor, place, f"{piece.stored[0].name} in {piece.stored[0].file.name}")
    return whole, parts


def from_arrays(
    trunk: Trunk, arrays: Mapping[str, NDArray[Any]], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The same from arrays by the names and shapes of `trunk.shapes`, for tests and benchmarks; errors as there."""
    whole, parts = _empty(trunk, device, dtype)
    for name, place in parts.items():
        _copy(upload(arrays[name], torch.device("cpu")), place, name)
    return whole


def _empty(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors to be filled: as the trunk multiplies, and as parts of these every tensor of `trunk.shapes`."""
    shapes, whole, parts = trunk.shapes, dict[str, Tensor](), dict[str, Tensor]()
    for name, shape in shapes.items():
        prefix, dot, part = name.rpartition(".")
        joined, members = next(((j, m) for j, m in _JOINED.items() if part in m), (part, (part,)))
        # where keys are values too, there is no matrix for these
        members = tuple(member for member in members if prefix + dot + member in shapes)
        if part != members[0]:
            continue
        rows = [shapes[prefix + dot + member][-2:][0] for member in members]
        # a matrix has its rows on the last axis but one (experts are stacked before it), a vector on its only one
        axis = max(len(shape) - 2, 0)
        full = [*shape[:axis], sum(rows), *shape[axis + 1 :]]
        if name in ("embed", "head"):
            full[0] = -(-full[0] // BLOCK) * BLOCK
        tensor = torch.empty(full, dtype=torch.float32 if part in _FLOAT32 else dtype, device=device)
        if full[axis] > sum(rows):
            tensor[sum(rows) :] = 0
        whole[prefix + dot + joined] = tensor
        start = 0
        for member, count in zip(members, rows, strict=True):
            parts[prefix + dot + member] = tensor.narrow(axis, start, count)
            start += count
    return whole, parts


def _read(opened: Any, piece: Piece) -> Tensor:
    if piece.rows is None:
        return opened.get_tensor(piece.name)
    first, stop = piece.rows
    return opened.get_slice(piece.name)[first:stop]


def _unpacked(packing: Packing, words: Tensor, scales: Tensor, biases: Tensor) -> Tensor:
    """A quantised matrix in float32."""
    # torch has hardly any operation on unsigned words
    bits = words.view(torch.int32).numpy().view(np.uint32)
    matrix = dequantise(bits, scales.float().numpy(), biases.float().numpy(), packing)
    return upload(matrix, torch.device("cpu"))


def _copy(stored: Tensor, place: Tensor, name: str) -> None:
    place.copy_(stored)
    if not bool(torch.isfinite(place).all()):
        if bool(torch.isfinite(stored).all()):
            kind = str(place.dtype).removeprefix("torch.")
            raise ModelError(f"{name} holds weights that overflow in {kind}; take bfloat16 or float32")
        raise ModelError(f"{name} holds NaN or infinite weights: the file is damaged; fetch it again")
