"""Piece: where a tensor of ours lies in a model's files: as it is, packed, or with what an adapter changes in it."""

from __future__ import annotations

import math
from pathlib import Path

import attrs

from mdsample.models.weights.headers import SIZES, Stored
from mdsample.models.weights.quantised import Packing


@attrs.frozen
class Piece:
    """Where a tensor of ours, or one expert's share of it, lies: one run of values in one file, row after row."""

    file: Path
    #: the published name
    name: str
    #: F32, F16 or BF16, little-endian; U32 for packed words
    dtype: str
    #: of the piece itself, after `rows`
    shape: tuple[int, ...]
    #: which rows of the published tensor it is (first, and one past the last); None: all
    rows: tuple[int, int] | None
    #: byte of the file at which its first value stands
    offset: int

    @staticmethod
    def of(name: str, tensor: Stored, rows: tuple[int, int] | None = None) -> Piece:
        """A stored tensor, or some rows of it."""
        shape, offset = tensor.shape, tensor.offset
        if rows is not None:
            shape = (rows[1] - rows[0], *shape[1:])
            offset += rows[0] * math.prod(shape[1:]) * SIZES[tensor.dtype]
        return Piece(tensor.file, name, tensor.dtype, shape, rows, offset)

    @property
    def kind(self) -> str:
        """How it is stored, for people."""
        return self.dtype

    @property
    def stored(self) -> tuple[Piece, ...]:
        """Itself; see `Packed`."""
        return (self,)

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * SIZES[self.dtype]


@attrs.frozen
class Packed:
    """A quantised tensor of ours, or one expert's share of it; see `mdsample.models.weights.quantised`."""

    words: Piece
    scales: Piece
    biases: Piece
    packing: Packing

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the piece once it is unpacked."""
        return (*self.words.shape[:-1], self.words.shape[-1] * 32 // self.packing.bits)

    @property
    def dtype(self) -> str:
        """Of scales and biases."""
        return self.scales.dtype

    @property
    def kind(self) -> str:
        """How it is stored, for people."""
        return str(self.packing)

    @property
    def stored(self) -> tuple[Piece, ...]:
        """Words, scales and biases."""
        return self.words, self.scales, self.biases

    @property
    def bytes(self) -> int:
        """Size in the files."""
        return sum(piece.bytes for piece in self.stored)


@attrs.frozen(kw_only=True)
class LowRank:
    """Two thin matrices of an adapter: `scale · b·a` is added, for an embedding its transpose."""

    #: `[r, in]`, for an embedding `[r, tokens]`
    a: Piece
    #: `[out, r]`
    b: Piece
    scale: float
    #: how long each row (for an embedding: each column) of the sum is made, `[out]`; `None`: it stays as it is
    magnitude: Piece | None
    #: whether it is an embedding's
    transposed: bool


@attrs.frozen
class Shift:
    """A vector of an adapter: `scale · values` is added."""

    values: Piece
    scale: float


#: what an adapter does to a tensor; a piece stands in its place
Change = Piece | LowRank | Shift


@attrs.frozen
class Merged:
    """A tensor of ours, or one expert's share of it, that an adapter changes; it is computed when it is read."""

    base: Piece
    #: in this order, each to the expert of its number, or to all of the tensor
    changes: tuple[tuple[int | None, Change], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As before."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The sum is rounded to the type that the model has it in."""
        return self.base.dtype

    @property
    def kind(self) -> str:
        """How it is stored, for people."""
        return self.base.kind

    @property
    def stored(self) -> tuple[Piece, ...]:
        """The model's own tensor."""
        return (self.base,)

    @property
    def bytes(self) -> int:
        """Size of the model's own tensor in its file."""
        return self.base.bytes


#: a tensor of ours, or one expert's share of it
AnyPiece = Piece | Packed | Merged
