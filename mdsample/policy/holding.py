"""Holding: revisions that keep a window open, so that what is written in it may still change."""

from __future__ import annotations

import abc
from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools, Ints, any_in_row, arange64
from mdsample.policy.evidence import EarlierTexts
from mdsample.policy.revise import Revise
from mdsample.policy.settings import integer, part, real
from mdsample.policy.view import Evidence, View


class Holding(Revise):
    """A revision that holds what is written in a window until the window is final; only then the next one is on offer.

    It has no budget of masked positions: what bounds it is `most`, the passes of one window.
    """

    __slots__ = ()
    #: whether each pass draws all of the window again: what the selection takes is written, the rest becomes blank, and
    #: a window that is final has the most probable token everywhere
    redraws: ClassVar[bool] = False

    @final
    @property
    def budget(self) -> int:
        """0: windows are bounded by `most`."""
        return 0

    @final
    def remask(self, view: View) -> Bools:
        """Nowhere; see `redraws`."""
        return np.zeros_like(view.eligible)

    @abc.abstractmethod
    def most(self, size: Ints) -> Ints:
        """The most passes that windows of `size [B]` open positions take, at least 1, `[B]`; the loop enforces it."""

    def rewrite(self, view: View) -> Ints:
        """The token to be written in place of a held one, −1 for none, `[B, L]`; read where `held`. Default: none."""
        return np.full(view.eligible.shape, -1, np.int32)

    @abc.abstractmethod
    def settles(self, view: View, chosen: Bools) -> Bools:
        """Rows whose window is final after this pass, `[B]`; `chosen [B, L]` is what the pass fills."""


@final
@part
class Edit(Holding):
    """Written tokens are overwritten where the most probable token is another one, of more than `probability`.

    In the same pass in which blanks are filled, within the window, and when it has no blank left in up to `after` more
    passes; it ends when nothing changes. So LLaDA2.1 edits (its joint threshold, arXiv 2602.08676, SGLang's
    `JointThreshold`), with `probability` 0 at its fastest and 0.5 at its best, and 16 passes `after`. Texts that take
    turns end it as soon as the passes left would end with the one that stands. The prediction has seen the token that
    it judges. Of a slot's language the token's class stays, so that the text stays in the language.
    """

    name: ClassVar[str] = "edit"
    probability: float = real(default=0.5, at_least=0, below=1)
    after: int = integer(default=16, at_least=0, kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """The texts of the passes after the last blank."""
        return (EarlierTexts(self.after),) if self.after > 1 else ()

    def most(self, size: Ints) -> Ints:
        """One for each blank, and `after`."""
        return size + np.int32(self.after)

    def rewrite(self, view: View) -> Ints:
        """The most probable token, where it is another one and probable enough."""
        best = view.marginals
        better = (best.confidence > np.float32(self.probability)) & (best.token != view.batch.tokens)
        return np.where(better & view.window & view.batch.held, best.token, np.int32(-1))

    def settles(self, view: View, chosen: Bools) -> Bools:
        """Without blanks, once nothing changes, the passes are spent, or texts take turns."""
        written = self.rewrite(view)
        filling = any_in_row(view.eligible)
        beyond = np.where(filling, 0, view.batch.idle + 1)
        over = (beyond >= self.after) | (~filling & ~any_in_row(written >= 0))
        if self.after > 1:
            earlier = view.get(EarlierTexts(self.after))
            after = np.where(written >= 0, written, view.batch.tokens)
            again = (earlier == after[:, None]).all(2)
            # text n of those after the last blank is the one that the pass `beyond` leaves
            period = np.maximum(beyond[:, None] - arange64(earlier.shape[1]), 1)
            over |= ~filling & any_in_row(again & ((self.after - beyond)[:, None] % period == 0))
        return over & ~any_in_row(view.eligible & ~chosen)


@final
@part
class Renoise(Holding):
    """All of the window is predicted in every pass: what the selection takes is drawn, the rest becomes blank again.

    So a token is only as old as the last pass, and any may still change. After `passes`, or once `converged`, the
    window is final, with the most probable token of the last prediction everywhere. DiffusionGemma's sampler
    (`EntropyBoundSampler` of transformers 5.23), with `entropy`, `entropy-bound(0.1)` and 48 passes, as here; the other
    way round, it works for every order and selection. Blanks show random tokens where the model's noise is uniform.
    """

    name: ClassVar[str] = "renoise"
    redraws: ClassVar[bool] = True
    passes: int = integer(default=48, at_least=1)

    def most(self, size: Ints) -> Ints:
        """`passes`."""
        return np.full_like(size, self.passes)

    def settles(self, view: View, chosen: Bools) -> Bools:
        """Never before its passes are spent; that is `most`."""
        return np.zeros(len(chosen), np.bool_)
