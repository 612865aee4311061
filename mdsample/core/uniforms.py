"""Uniform random numbers that depend on (seed, row id, purpose, step, position) and on nothing else.

Philox is counter-based: the key is made of seed and row id, the counter of purpose and step, and the position is the
place in the stream. So a row draws the same numbers alone, in any batch, padded, after a retry, on any backend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import attrs
import numpy as np

from mdsample.core.arrays import Doubles, Ints

#: what the numbers are used for; each purpose has a stream of its own
Purpose = Literal["draw", "order", "count", "revise", "noise"]
_STREAM: dict[Purpose, int] = {"draw": 0, "order": 1, "count": 2, "revise": 3, "noise": 4}


def row_key(seed: int, row: int | str) -> tuple[int, int]:
    """The 128-bit Philox key of a row."""
    digest = hashlib.blake2b(f"{seed}\0{type(row).__name__}\0{row}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


@attrs.frozen(eq=False)
class Uniforms:
    """Uniforms in (0, 1) for the rows at hand in their present steps; made only when asked for."""

    keys: Sequence[tuple[int, int]]
    step: Ints
    length: int

    def at(self, purpose: Purpose) -> Doubles:
        """One number per position, `[B, L]`, float64 in the open interval (0, 1)."""
        return self._draw(purpose, self.length)

    def per_row(self, purpose: Purpose) -> Doubles:
        """One number per row, `[B]`, float64 in the open interval (0, 1)."""
        return self._draw(purpose, 1)[:, 0]

    def _draw(self, purpose: Purpose, count: int) -> Doubles:
        out = np.empty((len(self.keys), count))
        # one generator, moved from key to key: making one asks the operating system for entropy, which takes longer
        philox = np.random.Philox(0)
        generator = np.random.Generator(philox)
        place = philox.state
        for i, (key, step) in enumerate(zip(self.keys, self.step.tolist(), strict=True)):
            place["state"]["key"][:] = key
            place["state"]["counter"][:] = (0, 0, step, _STREAM[purpose])
            philox.state = place
            generator.random(out=out[i])
        return np.maximum(out, 2.0**-54)  # the generator's grid starts at 0, which has no logarithm
