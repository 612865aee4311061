"""Toy models for crews, in a module that other processes can import: sound ones, and ones that fail or die."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.models.denoiser import Denoiser, Query
from mdsample.testing.toys import ScriptedDenoiser, Symbols


class Faulty(ScriptedDenoiser):
    """A toy that fails on rows with a certain token, and ends its process at a certain pass, or at those rows."""

    def __init__(self, poison: int | None = None, dies_at: int | None = None, graves: Path | None = None) -> None:
        """`poison`: a token; `dies_at`: a number of passes; `graves`: a folder that gets a file for every death.

        With `graves` rows with that token end the process.
        """
        super().__init__(Symbols(6))
        self._poison, self._left, self._graves = poison, dies_at, graves

    def predict(self, query: Query) -> NumpyPrediction:
        """As the toy does, if at all."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._die()
        if self._poison is not None and (query.tokens[:, 0] == self._poison).any():
            if self._graves is not None:
                self._die()
            raise RuntimeError("out of memory")
        return super().predict(query)

    def _die(self) -> None:
        if self._graves is not None:
            (self._graves / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Patient(ScriptedDenoiser):
    """A toy that makes no pass before another process has died, so that the other surely gets rows."""

    def __init__(self, graves: Path) -> None:
        """`graves`: a folder that gets a file for every death."""
        super().__init__(Symbols(6))
        self._graves, self._until = graves, time.monotonic() + 60

    def predict(self, query: Query) -> NumpyPrediction:
        """As the toy does, in time."""
        while not any(self._graves.iterdir()) and time.monotonic() < self._until:
            time.sleep(0.01)
        return super().predict(query)


def load(device: str) -> Denoiser:
    """`cpu`; `dies:N` ends with the N-th pass; `fails` fails on rows that begin with f; `absent` does not open."""
    if device == "absent":
        os._exit(3)
    kind, _, number = device.partition(":")
    return Faulty(5 if kind == "fails" else None, int(number) if kind == "dies" else None)


def load_patient(graves: Path, device: str) -> Denoiser:
    """For `functools.partial`: `dies:N` ends with the N-th pass, and any other device waits for that."""
    kind, _, number = device.partition(":")
    return Faulty(dies_at=int(number), graves=graves) if kind == "dies" else Patient(graves)


def load_deadly(folder: str) -> Denoiser:
    """Ends its process on rows that begin with f, each time."""
    return Faulty(5, graves=Path(folder))


class Mortal(ScriptedDenoiser):
    """A toy that ends its process at a random pass, until that has happened a certain number of times."""

    def __init__(self, folder: str, deaths: int) -> None:
        """`folder`: has a file for every death."""
        super().__init__(Symbols(6))
        self._folder, self._deaths, self._dice = Path(folder), deaths, random.Random(os.getpid())

    def predict(self, query: Query) -> NumpyPrediction:
        """As the toy does, if at all."""
        if self._dice.random() < 0.1 and len(list(self._folder.iterdir())) < self._deaths:
            (self._folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(query)


def load_mortal(folder: str, deaths: int, _weight: bytes = b"") -> Denoiser:
    """For `functools.partial`; a weight is only carried."""
    return Mortal(folder, deaths)
