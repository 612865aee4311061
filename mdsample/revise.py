"""Revise: which committed positions become blank again?"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import attrs
import numpy as np

from mdsample.arrays import Bools, Doubles
from mdsample.part import Part, Seat, integer
from mdsample.remdm import ETA, KIND, STEPS, clock
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


class RandomRevise(Revise):
    """A revision by independent coins; its exact law is `chances`, which `mdsample.exact` follows."""

    __slots__ = ()

    @abc.abstractmethod
    def chances(self, view: View) -> Doubles:
        """How likely each committed open position is masked again, `[B, L]`; elsewhere it is not read."""

    @final
    def remask(self, view: View) -> Bools:
        """Throws the coins with the row's own uniforms."""
        return view.uniforms.at("revise") < self.chances(view)


@final
@attrs.frozen
class RemdmRemask(RandomRevise):
    """ReMDM's coins: each token that was there before this step is masked again with probability σ (arXiv 2503.00307).

    `kind`, `eta`, `steps` as in `remdm-reveal`, which fills as many more; `limit` (512 a row) ends it in any case. A
    token of this step stays. σ by kind, with α the share that is to be filled before and after the step: `cap`
    min(η, (1 − α')/α); `rescale` η · min(1, (1 − α')/α); `conf` min(1, (1 − α')/α) times the softmax, over the row's
    tokens, of minus the probability that each had when it was written; `loop` η while time stands still, else 0.
    """

    name: ClassVar[str] = "remdm-remask"
    remembers: ClassVar[bool] = True
    kind: str = KIND
    eta: float | None = ETA
    steps: int = STEPS
    limit: int = integer(512, at_least=1, kw_only=True)

    @property
    def budget(self) -> int:
        """`limit`."""
        return self.limit

    def chances(self, view: View) -> Doubles:
        """σ of each position."""
        board = view.board
        sigma = np.array([clock(self.kind, self.eta, self.steps, step).sigma for step in board.step.tolist()])
        if self.kind != "conf":
            return np.broadcast_to(sigma[:, None], board.open.shape)
        written = board.open & ~board.blank
        weight = np.where(written, np.exp(-np.where(written, board.probability, 0).astype(np.float64)), 0)
        return sigma[:, None] * weight / np.maximum(weight.sum(1, keepdims=True), np.finfo(np.float64).tiny)
