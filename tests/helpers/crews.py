"""Toy models for crews, in a module that other processes can import: sound ones, and ones that fail or die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.testing.toys import ScriptedDenoiser, Symbols


class Faulty(ScriptedDenoiser):
    """A toy that fails on rows with a certain token, and ends its process at a certain pass."""

    def __init__(self, poison: int | None = None, dies_at: int | None = None) -> None:
        """`poison`: a token; `dies_at`: a number of passes."""
        super().__init__(Symbols(6))
        self._poison, self._left = poison, dies_at

    def predict(self, query: Query) -> Prediction:
        """As the toy does, if at all."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if self._poison is not None and (query.tokens[:, 0] == self._poison).any():
            raise RuntimeError("out of memory")
        return super().predict(query)


def load(device: str) -> Denoiser:
    """`cpu`; `dies:N` ends with the N-th pass; `fails` fails on rows that begin with f; `absent` does not open."""
    if device == "absent":
        os._exit(3)
    kind, _, number = device.partition(":")
    return Faulty(5 if kind == "fails" else None, int(number) if kind == "dies" else None)


def load_dying_once(mark: str, device: str) -> Denoiser:
    """Ends its process at the third pass, unless another one has before."""
    first = not Path(mark).exists()
    Path(mark).touch()
    return Faulty(dies_at=3 if first else None)
