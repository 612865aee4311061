"""Revise: which committed positions become blank again?"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools, Doubles
from mdsample.core.tokens import Tokenizer
from mdsample.policy.base import Part, Seat, part_text
from mdsample.policy.evidence import WrittenLogProb
from mdsample.policy.p2 import SCORES, planned
from mdsample.policy.remdm import KINDS, clock
from mdsample.policy.selection import P2Reveal
from mdsample.policy.settings import choice, integer, part, real
from mdsample.policy.view import Evidence, View


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
@part
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
@part
class RemdmRemask(RandomRevise):
    """ReMDM's coins: each token that was there before this step is masked again with probability σ (arXiv 2503.00307).

    `kind`, `eta`, `steps` as in `remdm-reveal`, which fills as many more; `limit` (512 a row) ends it in any case. A
    token of this step stays. σ by kind, with α the share that is to be filled before and after the step: `cap`
    min(η, (1 − α')/α); `rescale` η · min(1, (1 − α')/α); `conf` min(1, (1 − α')/α) times the softmax, over the row's
    tokens, of minus the probability that each had when it was written; `loop` η while the clock is paused, else 0.
    """

    name: ClassVar[str] = "remdm-remask"
    remembers: ClassVar[bool] = True
    kind: str = choice(KINDS, default="cap")
    eta: float | None = real(default=None, at_least=0, at_most=1, optional=True, kw_only=True)
    steps: int = integer(default=1024, at_least=1, kw_only=True)
    limit: int = integer(default=512, at_least=1, kw_only=True)

    @property
    def budget(self) -> int:
        """`limit`."""
        return self.limit

    def chances(self, view: View) -> Doubles:
        """σ of each position."""
        batch = view.batch
        sigma = np.array([clock(self.kind, self.eta, self.steps, step).sigma for step in batch.step.tolist()])
        if self.kind != "conf":
            return np.broadcast_to(sigma[:, None], batch.initially_blank.shape)
        written = batch.initially_blank & ~batch.blank
        weight = np.where(written, np.exp(-np.where(written, batch.probability, 0).astype(np.float64)), 0)
        return sigma[:, None] * weight / np.maximum(weight.sum(1, keepdims=True), np.finfo(np.float64).tiny)


class Rereading(Revise):
    """A revision by how likely this look finds what stands; it may mask `limit` positions of a row."""

    __slots__ = ()
    limit: int

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """The log-probability of what is written."""
        return (WrittenLogProb(),)

    @property
    def budget(self) -> int:
        """`limit`."""
        return self.limit


@final
@part
class BelowConfidence(Rereading):
    """Masks again what has become unlikely: tokens whose probability in this look is below `probability`.

    The least likely go first, and of one step at least one fewer than the step before filled: so a row takes no more
    steps than it has blanks, and one at a time nothing is masked. `limit` (512 a row) ends it in any case. Tokens of
    this step stay. The rule and its default 0.9 are WINO's narrow-out (arXiv 2507.18578), but for two things. WINO asks
    a shadow block, in which a token does not see itself; here it is asked what the model puts out where the token
    stands, having seen it. And WINO judges the tokens of the block, here it is those of the whole row. It takes no
    forward pass more: the look sees written positions as well. Under `choices` only the text that stands is possible.
    """

    name: ClassVar[str] = "below-confidence"
    remembers: ClassVar[bool] = True
    probability: float = real(default=0.9, above=0, at_most=1)
    limit: int = integer(default=512, at_least=1, kw_only=True)

    def remask(self, view: View) -> Bools:
        """The least likely of those below."""
        batch = view.batch
        written = batch.initially_blank & ~batch.blank
        before = (written & (batch.written == batch.step[:, None] - 1)).sum(1)
        log_probability = view.get(WrittenLogProb())
        doubtful = written & (np.exp(log_probability) < self.probability)
        order = np.argsort(np.where(doubtful, log_probability, np.inf), axis=1, kind="stable")
        return doubtful & (np.argsort(order, axis=1) < before[:, None] - 1)


@final
@part
class P2Remask(Rereading):
    """P2's path planning by the model itself: masks what is not among the best that are to stand (arXiv 2502.03540).

    For use with `confidence` and `p2-reveal` of the same settings, as the preset `p2` has them. Blanks score the
    log-probability of their most probable token, tokens that stand `eta` times theirs in this look: 0 keeps all, 1 as
    published, more masks more. `steps` (512) as the clock of `p2-reveal`; `limit` (4096 a row) ends it in any case. At
    temperature 0 it is the paper's rule; above, the paper scores drawn tokens. With `scores` best it is the authors'
    code at temperature 0: a token that stands scores what the most probable token there now has. A model is asked for
    its output there, having seen the token.
    """

    name: ClassVar[str] = "p2-remask"
    eta: float = real(default=1.0, at_least=0)
    steps: int = integer(default=512, at_least=1, kw_only=True)
    scores: str = choice(SCORES, default="own", kw_only=True)
    limit: int = integer(default=4096, at_least=1, kw_only=True)

    def conflict(self, other: Part, tokenizer: Tokenizer) -> str:
        """Only with its other half: what another selection writes against the plan would be masked again at once."""
        half = P2Reveal(self.eta, steps=self.steps, scores=self.scores)
        if other.seat == "selection" and other != half:
            return (
                f"{part_text(self)} plans together with {part_text(half)}, not with {part_text(other)}; "
                "take the preset p2, or another revision"
            )
        return ""

    def remask(self, view: View) -> Bools:
        """What stands and is not planned to."""
        return view.batch.initially_blank & ~view.batch.blank & ~planned(view, self.eta, self.steps, self.scores)
