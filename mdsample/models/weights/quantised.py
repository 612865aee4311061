"""Affine quantisation as MLX stores it: a matrix as small whole numbers, with a scale and a bias for every group.

A value is scale · q + bias, q in 0..2^bits − 1; a group is `group_size` neighbours in a row (along the input). The
tensor `x.weight` is stored as `x.weight` (U32: 32 values in as many words as a value has bits, one after the other from
the lowest bit of the first word on, so that of 3, 5 and 6 bits some lie across two words), `x.scales` and `x.biases`.
Bits and group size follow from the shapes, so matrices of one checkpoint may differ in them.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Floats
from mdsample.models.weights.headers import Stored

#: bits of a value, values of a group
BITS, GROUP_SIZES = (2, 3, 4, 5, 6, 8), (32, 64, 128)
#: types of scales and biases
_SCALES = ("F32", "F16", "BF16")


@attrs.frozen
class Packing:
    """How a matrix is packed."""

    bits: int
    group_size: int

    def __str__(self) -> str:
        """For people."""
        return f"{self.bits} bits in groups of {self.group_size}"

    def shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape of the words, and of scales and biases, of a matrix `[..., out, in]`."""
        return (*shape[:-1], shape[-1] * self.bits // 32), (*shape[:-1], shape[-1] // self.group_size)


def parts(name: str) -> tuple[str, str, str]:
    """The names under which the packed tensor `name` is stored: words, scales, biases."""
    stem = name.removesuffix("weight")
    return name, stem + "scales", stem + "biases"


def packings(expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Stored]) -> dict[str, Packing]:
    """Which of the `expected` tensors (published names, shapes) are stored packed, and how.

    Raises `ValueError` that names what does not fit.
    """
    return {name: _packing(name, shape, stored) for name, shape in expected.items() if _is_packed(name, stored)}


def _is_packed(name: str, stored: Mapping[str, Stored]) -> bool:
    return name.endswith(".weight") and name in stored and (stored[name].dtype == "U32" or parts(name)[1] in stored)


def _packing(name: str, shape: tuple[int, ...], stored: Mapping[str, Stored]) -> Packing:
    words, scales, biases = (stored.get(part) for part in parts(name))
    assert words is not None
    if scales is None or biases is None:
        lost = parts(name)[1 if scales is None else 2]
        raise ValueError(f"{name} is quantised, but {lost} is missing")
    for way in (Packing(bits, size) for bits in BITS for size in GROUP_SIZES if not shape[-1] % size):
        if words.dtype == "U32" and way.shapes(shape) == (words.shape, scales.shape) and biases.shape == scales.shape:
            break
    else:
        raise ValueError(
            f"{name} should be {list(shape)}, quantised to {_listed(BITS)} bits in groups of {_listed(GROUP_SIZES)}; "
            f"found {words.dtype} {list(words.shape)} with scales {list(scales.shape)} and biases {list(biases.shape)}"
        )
    for tensor, part in ((scales, parts(name)[1]), (biases, parts(name)[2])):
        if tensor.dtype not in _SCALES:
            raise ValueError(f"{part} is stored as {tensor.dtype}; {_listed(_SCALES)} are read")
    return way


def dequantise(words: NDArray[np.uint32], scales: Floats, biases: Floats, packing: Packing) -> Floats:
    """A packed matrix in float32, `[..., in]`: `words [..., n]`; scales and biases float32 `[..., groups]`."""
    mask = np.uint32(2**packing.bits - 1)
    runs = words.reshape(*words.shape[:-1], -1, packing.bits)
    values = np.empty((*runs.shape[:-1], 32), np.uint32)
    for i in range(32):
        word, shift = divmod(i * packing.bits, 32)
        values[..., i] = runs[..., word] >> np.uint32(shift)
        if shift + packing.bits > 32:
            values[..., i] |= runs[..., word + 1] << np.uint32(32 - shift)
    values &= mask
    grouped = values.astype(np.float32).reshape(*scales.shape, packing.group_size)
    grouped *= scales[..., None]
    grouped += biases[..., None]
    return grouped.reshape(*scales.shape[:-1], -1)


def quantise(matrix: Floats, packing: Packing) -> tuple[NDArray[np.uint32], Floats, Floats]:
    """Words, scales and biases of `matrix [..., in]` float32, as MLX's own `quantize` computes them.

    In each group the value that is farthest from 0 lies on the grid, and 0 does. Scales and biases are float32, to be
    rounded to the type that they are stored in.
    """
    groups = matrix.reshape(*matrix.shape[:-1], -1, packing.group_size)
    low: Floats = groups.min(-1)
    high: Floats = groups.max(-1)
    most = np.float32(2**packing.bits - 1)
    step: Floats = np.maximum((high - low) / most, np.float32(1e-7))
    negative = np.abs(low) > np.abs(high)
    edge: Floats = np.where(negative, low, high)
    step = np.where(negative, step, -step)
    steps = np.rint(edge / step)
    flat = steps == 0
    scale: Floats = np.where(flat, step, edge / np.where(flat, np.float32(1), steps))
    bias: Floats = np.where(flat, np.float32(0), edge)
    values = np.clip(np.rint((groups - bias[..., None]) / scale[..., None]), 0, most).astype(np.uint32)
    return packed(values.reshape(matrix.shape), packing.bits), scale, bias


def packed(values: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """Words `[..., in * bits / 32]` of whole numbers `[..., in]` below 2^bits; `in` is a multiple of 32."""
    runs = values.reshape(*values.shape[:-1], -1, 32)
    words = np.zeros((*runs.shape[:-1], bits), np.uint32)
    for i in range(32):
        word, shift = divmod(i * bits, 32)
        words[..., word] |= runs[..., i] << np.uint32(shift)
        if shift + bits > 32:
            words[..., word + 1] |= runs[..., i] >> np.uint32(32 - shift)
    return words.reshape(*values.shape[:-1], -1)


def _listed(values: tuple[object, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
