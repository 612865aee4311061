"""Matrices behind one small value: no caller needs to know whether they are quantised.

Quantised ones stay packed in memory and are unpacked by the kernels that multiply with them.
"""

from __future__ import annotations

from typing import final

import attrs
import mlx.core as mx

from mdsample.models.weights.quantised import Packing
from mdsample_mlx.device import is_gpu


@final
@attrs.frozen(eq=False)
class Dense:
    """`[..., out, in]` in float32, bfloat16 or float16; experts are stacked on an axis before these."""

    weight: mx.array

    @property
    def arrays(self) -> tuple[mx.array, ...]:
        """What it holds."""
        return (self.weight,)

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.weight.shape[-2]

    def __call__(self, x: mx.array) -> mx.array:
        """`x [..., in]` to `[..., out]`, in the wider of the two types."""
        return x @ self.weight.swapaxes(-1, -2)

    def chosen(self, x: mx.array, experts: mx.array) -> mx.array:
        """`x [T, 1, in]` to `[T, 1, out]`, each by its own expert; `experts [T]` must rise."""
        weight = self.weight
        if not is_gpu(mx.default_device()):
            # the kernel for CPUs knows no other type
            weight = weight.astype(mx.float32)
        mixed = mx.gather_mm(x.astype(weight.dtype), weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)
        return mixed.astype(x.dtype)

    def take(self, rows: mx.array) -> mx.array:
        """Rows as they are, `[n, in]`."""
        return self.weight[rows]

    def mean(self, weights: mx.array) -> mx.array:
        """The sum of its rows, each times its weight: `weights [n, out]` to `[n, in]`."""
        return weights @ self.weight

    def padded(self, rows: int) -> Dense:
        """With rows of zeros at the end."""
        return Dense(_padded(self.weight, rows))


@final
@attrs.frozen(eq=False)
class Affine:
    """Packed as `models.weights.quantised` says: `words [..., out, n]`, `scales`, `biases` `[..., out, groups]`."""

    words: mx.array
    scales: mx.array
    biases: mx.array
    packing: Packing

    @property
    def arrays(self) -> tuple[mx.array, ...]:
        """What it holds."""
        return self.words, self.scales, self.biases

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.words.shape[-2]

    def __call__(self, x: mx.array) -> mx.array:
        """As `Dense`; the type of the scales counts."""
        return mx.quantized_matmul(
            x, *self.arrays, transpose=True, group_size=self.packing.group_size, bits=self.packing.bits
        )

    def chosen(self, x: mx.array, experts: mx.array) -> mx.array:
        """As `Dense`."""
        return mx.gather_qmm(
            x,
            *self.arrays,
            rhs_indices=experts,
            transpose=True,
            group_size=self.packing.group_size,
            bits=self.packing.bits,
            sorted_indices=True,
        )

    def take(self, rows: mx.array) -> mx.array:
        """Rows unpacked, in the type of the scales."""
        words, scales, biases = (part[rows] for part in self.arrays)
        return mx.dequantize(words, scales, biases, group_size=self.packing.group_size, bits=self.packing.bits)

    def mean(self, weights: mx.array) -> mx.array:
        """As `Dense`."""
        return mx.quantized_matmul(
            weights, *self.arrays, transpose=False, group_size=self.packing.group_size, bits=self.packing.bits
        )

    def padded(self, rows: int) -> Affine:
        """With rows of zeros at the end."""
        words, scales, biases = (_padded(part, rows) for part in self.arrays)
        return Affine(words, scales, biases, self.packing)


#: either
Matrix = Dense | Affine


def _padded(array: mx.array, rows: int) -> mx.array:
    return array if rows == array.shape[0] else mx.pad(array, [(0, rows - array.shape[0]), (0, 0)])
