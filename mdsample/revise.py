"""Revise: which committed positions become blank again?"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import attrs
import numpy as np

from mdsample.arrays import Bools
from mdsample.part import Part, Seat
from mdsample.view import View


class Revise(Part):
    """Decides which committed positions are masked again."""

    __slots__ = ()
    seat: ClassVar[Seat] = "revise"

    @property
    @abc.abstractmethod
    def budget(self) -> int:
        """The most positions of one row that it may mask again in a whole run; the loop enforces it, so runs end."""

    @abc.abstractmethod
    def remask(self, view: View) -> Bools:
        """`[B, L]`, true where a committed open position becomes blank again."""


@final
@attrs.frozen
class Never(Revise):
    """What is committed stays."""

    name: ClassVar[str] = "never"

    @property
    def budget(self) -> int:
        """0."""
        return 0

    def remask(self, view: View) -> Bools:
        """Nowhere."""
        return np.zeros_like(view.eligible)
