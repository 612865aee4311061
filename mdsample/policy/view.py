"""All that a part may see: the batch before a forward pass, the view after it, and evidence beyond the marginals."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools, Doubles, Floats, Indices, Ints, arange64
from mdsample.core.credits import Credits
from mdsample.core.marginals import Marginals
from mdsample.core.tokens import Tokenizer
from mdsample.core.uniforms import Uniforms


@attrs.frozen(eq=False, slots=False)
class Batch:
    """The rows that are still active, before the forward pass; arrays `[B, L]` unless said.

    Positions count from the start of the row, so a row looks the same alone and in any batch; padding is at the end.
    """

    #: the text so far; the mask token wherever nothing is written
    tokens: Ints
    #: still to fill; where a revision draws everything again, also what is `held`
    blank: Bools
    #: written, but not final: a revision keeps its window open
    held: Bools
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
    #: Σ d so far, d the bound of `mdsample.core.bounds` on a step's total variation, `[B]` float64
    tv_sum: Doubles
    #: steps taken so far, `[B]`
    step: Ints
    #: steps since the present window was opened, where a revision holds windows, else since the beginning, `[B]`
    age: Ints
    #: of these, the last ones in a row in which no blank was filled, `[B]`
    idle: Ints
    #: forward passes so far, `[B]`
    nfe: Ints
    #: forward passes a step costs (2 under guidance)
    passes: int
    #: the model's tokens
    tokenizer: Tokenizer
    #: the model sees a row in blocks of this many positions, each with all before it; `None`: all of the row
    block: int | None = None
    #: these are counted from the row's first open position, not from its beginning
    led: bool = False

    @cached_property
    def open_index(self) -> Ints:
        """Number of each open position among the row's open positions, from 0; −1 elsewhere."""
        return np.where(self.initially_blank, np.cumsum(self.initially_blank, 1, dtype=np.int32) - 1, np.int32(-1))

    @property
    def unsettled(self) -> Bools:
        """What is not final: still to fill, or held, `[B, L]`."""
        return self.blank | self.held

    def with_held_as_blank(self) -> Batch:
        """The batch as a window sees it, which moves on when all is final: what is held is still to fill."""
        if not self.held.any():
            return self
        after = copy.copy(self)  # as in `filled`
        object.__setattr__(after, "blank", self.unsettled)
        return after

    def filled(self, fill: Ints) -> Batch:
        """The batch with the tokens of `fill [B, L]` written into it, −1 where none is."""
        after = copy.copy(self)  # a copy, so that a guarded batch stays guarded
        object.__setattr__(after, "tokens", np.where(fill >= 0, fill, self.tokens))
        object.__setattr__(after, "blank", self.blank & (fill < 0))
        object.__setattr__(after, "held", self.held & (fill < 0))
        return after

    def take(self, rows: Indices) -> Batch:
        """Some of its rows, in any number and order."""
        after = copy.copy(self)  # as in `filled`
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                object.__setattr__(after, name, value[rows])
        return after

    def in_slot(self, name: str) -> Bools:
        """Positions of slot `name`, filled or not."""
        return self.slot == self.names.index(name)


class Evidence(abc.ABC):
    """Something that a part must know beyond the marginals of this prediction; a part declares it in `needs`.

    A frozen value that says which further positions must be predicted, what is tried out in a further pass, how many
    of a row's last predictions it compares with, and how its value is computed: an array whose first axis is the
    batch's rows. Rows must not depend on one another.
    """

    __slots__ = ()

    @property
    def depth(self) -> int:
        """How many of a row's last predictions its value depends on. Default 0."""
        return 0

    @property
    def passes(self) -> int:
        """The most further forward passes that a row pays for in one step, without guidance. Default 0."""
        return 0

    def wanted(self, batch: Batch) -> Bools:
        """Positions that must be predicted besides those on offer, `[B, L]`. Default: none."""
        return np.zeros_like(batch.blank)

    def trials(self, view: View) -> Trials | None:
        """Texts to predict in a further pass; `None` for no pass. Default: none."""
        return None

    @abc.abstractmethod
    def value(self, seen: Seen) -> NDArray[Any]:
        """What `View.get` gives, `[B, ...]`."""

    def remembered(self, seen: Seen, value: NDArray[Any]) -> Sequence[Any]:
        """What each row's next prediction is compared with, `[B]`; asked for only if `depth` is above 0."""
        return [None] * len(value)


@attrs.frozen(eq=False)
class Trials:
    """Texts that are tried out, T in number: variants of rows of a batch. Their blanks are predicted."""

    #: the row that each varies, `[T]`
    row: Ints
    #: the position that each fills, `[T]`, and the token that it has there
    position: Ints
    token: Ints


@attrs.frozen(eq=False)
class Seen:
    """What the value of a kind of evidence is computed from."""

    view: View
    prediction: Predicted
    #: what `Evidence.remembered` gave for each row's last prediction, `None` for a row without one, `[B]`
    before: Sequence[Any]
    #: what was tried out, and the statistics of each trial's blanks, `[T, L]`
    trials: Trials | None
    answer: Marginals | None


class Predicted(Protocol):
    """What evidence may ask of a prediction; see `mdsample.models.denoiser.Prediction`."""

    @property
    def credits(self) -> Credits | None:
        """What the rows have earned; `None` unless the guide is `credit`."""
        ...

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]`, nats, of stated tokens at N places."""
        ...

    def divergence(self, rows: Ints, positions: Ints, before: Any, before_rows: Ints) -> Floats:
        """KL(this prediction ‖ `before`) `[N]`, nats, at N places."""
        ...


@attrs.frozen(eq=False)
class View:
    """The batch together with what the forward pass said."""

    batch: Batch
    #: the model's statistics where they were wanted
    marginals: Marginals
    #: positions on offer now: still to fill and inside the window
    eligible: Bools
    #: all of the window that is not final: what is on offer, and what is held, `[B, L]`
    window: Bools
    #: uniforms keyed by (seed, row, step, position)
    uniforms: Uniforms
    #: the values of the evidence that parts need
    evidence: Mapping[Evidence, NDArray[Any]] = attrs.field(factory=dict[Evidence, Any])

    def get(self, evidence: Evidence) -> NDArray[Any]:
        """The value of a kind of evidence, `[B, ...]`; `ValueError` unless a part declares it in its `needs`."""
        if evidence not in self.evidence:
            raise ValueError(f"a part reads {evidence} without declaring it; add it to the part's `needs`")
        return self.evidence[evidence]

    def take(self, rows: Indices) -> View:
        """The view of some of its rows, in any number and order; random numbers stay those of all."""
        evidence = {kind: value[rows] for kind, value in self.evidence.items()}
        marginals = Marginals(*(getattr(self.marginals, field.name)[rows] for field in attrs.fields(Marginals)))
        return View(self.batch.take(rows), marginals, self.eligible[rows], self.window[rows], self.uniforms, evidence)


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
        inside = arange64(holds.shape[1])[None] < self.number[:, None]
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
