"""Float32 arrays from a checked checkpoint, read tensor by tensor through memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import attrs
import numpy as np

from mdsample.arrays import Floats
from mdsample.checkpoint import Checkpoint, Packed, Piece
from mdsample.errors import ModelError
from mdsample.quantised import dequantise

# as the format stores them
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@final
@attrs.frozen(eq=False)
class Tensors(Mapping[str, Floats]):
    """The tensors of a checkpoint by our own names; each is read when it is asked for, so none is in memory twice.

    float32, in the shapes of `checkpoint.trunk.shapes`; those stored as float32 are read-only views of the file, and
    quantised ones are unpacked.
    Raises `ModelError` that names the tensor if one of its weights is not finite.
    """

    checkpoint: Checkpoint

    def __getitem__(self, name: str) -> Floats:
        """One tensor; `KeyError` if the trunk has none of this name."""
        pieces = [_found(piece) for piece in self.checkpoint.pieces[name]]
        whole = pieces[0] if len(pieces) == 1 else np.stack(pieces)
        return whole.reshape(self.checkpoint.trunk.shapes[name])

    def __iter__(self) -> Iterator[str]:
        """Our names."""
        return iter(self.checkpoint.pieces)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.checkpoint.pieces)


def _found(piece: Piece | Packed) -> Floats:
    if isinstance(piece, Piece):
        return read_piece(piece)
    words = np.memmap(piece.words.file, "<u4", "r", piece.words.offset, piece.words.shape)
    return dequantise(words, read_piece(piece.scales), read_piece(piece.biases), piece.packing)


def read_piece(piece: Piece) -> Floats:
    """A piece in float32; `ModelError` that names it if one of its weights is not finite."""
    stored = np.memmap(piece.file, _STORED[piece.dtype], "r", piece.offset, piece.shape)
    if piece.dtype == "BF16":
        # bfloat16 is the upper half of a float32
        values = stored.astype(np.uint32)
        values <<= 16
        found: Floats = values.view(np.float32)
    else:
        found = np.asarray(stored).astype(np.float32, copy=False)
        found = np.require(found, requirements="A")  # a file need not align its tensors
    # the sum of finite numbers is finite unless it overflows; only then is every number looked at
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(found.sum())
    if suspicious and not np.isfinite(found).all():
        place = np.argwhere(~np.isfinite(found))[0]
        raise ModelError(
            f"the weights in {piece.file.parent} are damaged: {piece.name} is {found[tuple(place)]} at "
            f"{place.tolist()}; fetch them again"
        )
    return found
