"""Float32 arrays from a checked checkpoint, read tensor by tensor through memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import attrs
import numpy as np

from mdsample.core.arrays import Floats
from mdsample.models.weights.checkpoint import Checkpoint
from mdsample.models.weights.pieces import read_any


@final
@attrs.frozen(eq=False)
class Tensors(Mapping[str, Floats]):
    """The tensors of a checkpoint by our own names; each is read when it is asked for, so none is in memory twice.

    float32, in the shapes of `checkpoint.trunk.shapes`; those stored as float32 are read-only views of the file,
    quantised ones are unpacked, and what an adapter changes is merged.
    Raises `ModelError` that names the tensor if one of its weights is not finite.
    """

    checkpoint: Checkpoint

    def __getitem__(self, name: str) -> Floats:
        """One tensor; `KeyError` if the trunk has none of this name."""
        pieces = [read_any(piece) for piece in self.checkpoint.pieces[name]]
        whole = pieces[0] if len(pieces) == 1 else np.stack(pieces)
        return whole.reshape(self.checkpoint.trunk.shapes[name])

    def __iter__(self) -> Iterator[str]:
        """Our names."""
        return iter(self.checkpoint.pieces)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.checkpoint.pieces)
