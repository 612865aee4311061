"""All that a part may look at: the board before a forward pass, and the view after it."""

from __future__ import annotations

import copy
from functools import cached_property

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Ints, upto
from mdsample.core.marginals import Marginals
from mdsample.core.tokens import Tokenizer
from mdsample.core.uniforms import Uniforms


@attrs.frozen(eq=False, slots=False)
class Batch:
    """The rows that are still active, before the forward pass; arrays `[B, L]` unless said.

    Positions count from the start of the row, so a row looks the same alone and in any batch; padding is at the end.
    """

    #: the text so far; the mask token wherever `blank`
    tokens: Ints
    #: still to fill
    blank: Bools
    #: was blank when the run began (slots), filled or not
    initially_blank: Bools
    #: belongs to the row (false: padding)
    valid: Bools
    #: number of the slot, −1 for fixed text
    slot: Ints
    #: slot names; `slot` indexes them
    names: tuple[str, ...]
    #: the step in which a position was committed, −1 if not
    written: Ints
    #: probability of the committed token when it was committed, NaN if not
    probability: Floats
    #: Σ b so far, nats, b = ΣH − max H of a step's commits, `[B]` float64
    error_bound: Doubles
    #: steps taken so far, `[B]`
    step: Ints
    #: forward passes so far, `[B]`
    nfe: Ints
    #: forward passes a step costs (2 under guidance)
    passes: int
    #: the model's tokens
    tokenizer: Tokenizer

    @cached_property
    def open_index(self) -> Ints:
        """Number of each open position among the row's open positions, from 0; −1 elsewhere."""
        return np.where(self.initially_blank, np.cumsum(self.initially_blank, 1, dtype=np.int32) - 1, np.int32(-1))

    def filled(self, fill: Ints) -> Batch:
        """The board with the tokens of `fill [B, L]` written into it, −1 where none is."""
        after = copy.copy(self)  # not a new one: a board that guards its past is not read here, and goes on guarding
        object.__setattr__(after, "tokens", np.where(fill >= 0, fill, self.tokens))
        object.__setattr__(after, "blank", self.blank & (fill < 0))
        return after

    def in_slot(self, name: str) -> Bools:
        """Where slot `name` stands, filled or not."""
        return self.slot == self.names.index(name)


@attrs.frozen(eq=False)
class View:
    """The board together with what the forward pass said."""

    batch: Batch
    #: the model's statistics where it was looked at
    marginals: Marginals
    #: positions on offer now: blank and inside the window
    eligible: Bools
    #: uniforms keyed by (seed, row, step, position)
    uniforms: Uniforms
    #: KL(look ‖ look before) of the last n looks, this one first, `[B, n, L]` float32, nats; n is what parts ask for
    #: (`Part.shifts`), at most as many looks as there can be; +inf unless both looks had the position on offer
    shifts: Floats
    #: mean entropy of the blanks that would remain if a position that the order tries held its most probable token,
    #: `[B, L]` float64, nats; +inf where nothing was tried
    remaining: Doubles
    #: `standing`, or `None`: no part asks
    reread: Floats | None

    @property
    def standing(self) -> Floats:
        """Log-probability of the token that stands at each written position in this look, `[B, L]` float32, nats.

        NaN in blanks and fixed text. It is what the model puts out there, under the guide and the constraints as
        elsewhere; a network has seen the token, it is not left out. `ValueError` unless a part asks (`Part.rereads`).
        """
        if self.reread is None:
            raise ValueError("a part reads view.standing without saying so; give its class `rereads = True`")
        return self.reread


@attrs.frozen(eq=False)
class Ranked:
    """The eligible positions of each row in the policy's order, best first; arrays `[B, N]`, N = most in any row.

    Beyond a row's `number` the entries are padding: entropy +inf, confidence 0, margin 0, position −1.
    """

    #: how many are eligible, `[B]`
    number: Ints
    position: Ints
    confidence: Floats
    margin: Floats
    entropy: Floats

    def leading(self, holds: Bools) -> Ints:
        """Length `[B]` of the longest prefix all of whose members satisfy `holds [B, N]`."""
        inside = upto(holds.shape[1])[None] < self.number[:, None]
        return np.cumprod(holds & inside, 1).sum(1).astype(np.int32)


def capped(count: Ints, k: int | None) -> Ints:
    """`count`, at most `k`."""
    return count if k is None else np.minimum(count, np.int32(k))


def bounds(ranked: Ranked) -> Doubles:
    """b = ΣH − max H of each prefix of the ranking, nats, `[B, N]` float64: it bounds its total correlation."""
    h = entropies(ranked)
    return np.cumsum(h, 1) - np.maximum.accumulate(h, 1)


def entropies(ranked: Ranked) -> Doubles:
    """Entropies in rank order in float64, padding as 0, for sums."""
    return np.where(np.isfinite(ranked.entropy), ranked.entropy, 0.0).astype(np.float64)
