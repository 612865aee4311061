"""The one boundary: what the loop asks of a model on a backend, and what it gets back."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Indices, Ints
from mdsample.core.credits import Credits
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache
from mdsample.policy.draw import Draw
from mdsample.policy.guide import Cfg, Cooling, Credit, Guide, NoGuide, Tuned

#: what a model that is to fill blanks is shown in them: the mask token, or random tokens
Noise = Literal["mask", "uniform"]


@attrs.frozen(eq=False)
class Memory:
    """What a self-conditioned model kept of its prediction of one row, for its next one of the same row.

    It stays on the device, and only the model's own backend looks into it.
    """

    #: of all rows of that prediction
    whole: Any
    #: the row there
    row: int


@attrs.frozen(eq=False)
class Tuning:
    """How the logits of B rows are changed under a `Tuned` guide, before anything is measured."""

    #: what they are divided by, float32, `[B]`
    divisor: Floats
    #: the token whose logit is lowered at each position, −1 for none, int32, `[B, L]`, and by how much
    token: Ints
    lowered: float

    def take(self, rows: Indices) -> Tuning:
        """That of some of the rows, in any number."""
        return Tuning(self.divisor[rows], self.token[rows], self.lowered)

    def at(self, rows: Ints, positions: Ints) -> tuple[Ints, Ints, Floats]:
        """Of N places: which have a lowered token, and that token, `[n]` both; what all are divided by, `[N]`."""
        token = self.token[rows, positions]
        which = np.flatnonzero(token >= 0).astype(np.int32)
        return which, token[which], self.divisor[rows]


@attrs.frozen(eq=False)
class Query:
    """One forward pass over B rows; arrays `[B, L]`."""

    #: int32; in blanks the mask token or, if the model's noise is uniform, a random token
    tokens: Ints
    #: false in padding, which must not influence anything
    valid: Bools
    #: positions whose statistics are wanted
    wanted: Bools
    #: fixed text (the part that guidance hides)
    fixed: Bools
    restriction: Restriction
    guide: Guide
    #: what tells the rows apart from pass to pass, for models that keep something between them
    rows: Rows
    #: what a guide asks for place by place; `None`: nothing
    tuning: Tuning | None = None
    #: of each row, what a self-conditioned model kept of its last prediction of it, `[B]`; empty: of none. A block all
    #: of whose open positions were predicted then is conditioned on that; any other is as it is when it begins
    memory: Sequence[Memory | None] = ()
    #: whether such a model is to keep this prediction
    remember: bool = False
    #: what the rows have earned in earlier passes, where the guide is `credit`
    credits: Credits | None = None

    @property
    def opened(self) -> Bools:
        """Positions that were open when their row began."""
        return self.valid & ~self.fixed

    def passes(self, mask_id: int) -> tuple[Ints, ...]:
        """The tokens `[B, L]` int32 of every forward pass: as they are, and for `Cfg` also with `fixed` masked.

        Raises `ValueError` for a guide that backends do not know.
        """
        match self.guide:
            case NoGuide() | Cooling() | Tuned() | Credit():
                return (self.tokens,)
            case Cfg():
                return self.tokens, np.where(self.fixed, np.int32(mask_id), self.tokens)
            case _:
                known = "none, cfg, cooling, annealing, repetition, credit"
                raise ValueError(f"the guide {type(self.guide).__name__} is not known here; known: {known}")


class Prediction(Protocol):
    """One forward pass, kept where the model is; only small statistics are on the host."""

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen outside `query.wanted`."""
        ...

    @property
    def credits(self) -> Credits | None:
        """What the query's rows have earned, this prediction included; `None` unless the guide is `credit`."""
        ...

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        """Draws a token at each of N places by inverse CDF.

        `rows`, `positions` `[N]` index the query; `uniforms [N]` float64 in (0, 1). Places of one slot that holds a
        language are drawn jointly: each given those before it. Returns tokens `[N]` int32 and their probabilities `[N]`
        float32 under the model's conditional at temperature 1.
        """
        ...

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]` float32, nats, of stated tokens at N places, at temperature 1.

        `rows`, `positions`, `tokens` `[N]`; under the query's guide and restriction, −inf for a token that it forbids.
        Raises `ValueError` for a position that was not wanted and for a token id that does not exist.
        """
        ...

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """KL(this prediction ‖ `before`) `[N]` float32, nats, at N places that both saw, at temperature 1.

        `rows`, `positions`, `before_rows` `[N]`: row `rows[n]` of this query was row `before_rows[n]` of that one, in
        the same positions. Each under its own query's guide and restriction; +inf where a token is possible that was
        forbidden before. `ValueError` for a position that was not wanted and for a prediction of another backend.
        """
        ...


class Remembering(Prediction, Protocol):
    """What a self-conditioned model gives when it is to `remember`."""

    @property
    def memories(self) -> Sequence[Memory]:
        """Of each row, what it kept, `[B]`."""
        ...


@attrs.frozen
class About:
    """What is known of a model before it is run."""

    name: str
    #: what it runs on; another dtype than float32 is part of it: answers in another one must not pass for the same
    backend: str
    tokenizer: Tokenizer
    #: number of logits, at least `tokenizer.size`
    vocab_size: int
    #: text of the template that suits the model
    template: str
    #: the longest row it can take, tokens
    max_length: int
    #: what it keeps from one forward pass to the next, of the last one's rows only, each thread for itself
    cache: Cache | None = None
    #: it sees a row in blocks of this many positions, each with all before it; `None`: all of the row
    block: int | None = None
    #: text of the policy that it is published with, taken where nobody names another; empty: none is known
    policy: str = ""
    #: its blocks are counted from a row's first open position, and each is led by the token before it
    led: bool = False
    #: what it is shown in blanks; `uniform`: tokens drawn evenly from all `vocab_size`, anew for every pass
    noise: Noise = "mask"
    #: it is self-conditioned: in a block it also sees what it predicted there the last time
    conditioned: bool = False


class Denoiser(abc.ABC):
    """A model on a backend: what is known of it, and its forward pass."""

    def __init__(self, about: About) -> None:
        """`about`: what is known of it beforehand; the same in every pass."""
        self.about = about

    @abc.abstractmethod
    def predict(self, query: Query) -> Prediction:
        """One forward pass (two under guidance)."""

    def restart_peak_memory(self) -> None:  # noqa: B027 - most backends have no counter
        """`peak_memory` counts from here; a device has one counter, so two runs on it at once share it."""

    @property
    def peak_memory(self) -> int | None:
        """The most bytes that its device held at once, weights included; `None` if the backend does not know."""
        return None

    @property
    def name(self) -> str:
        """As in `About`, like all below."""
        return self.about.name

    @property
    def backend(self) -> str:
        """What it runs on."""
        return self.about.backend

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokens."""
        return self.about.tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self.about.vocab_size

    @property
    def template(self) -> str:
        """Text of the template that suits it."""
        return self.about.template

    @property
    def policy(self) -> str:
        """Text of the policy that it is published with; empty: none is known."""
        return self.about.policy

    @property
    def max_length(self) -> int:
        """The longest row, tokens."""
        return self.about.max_length

    @property
    def block(self) -> int | None:
        """How many positions it sees at once beside all before them; `None`: the whole row."""
        return self.about.block

    @property
    def led(self) -> bool:
        """Whether its blocks are counted from a row's first open position (else from the row's beginning)."""
        return self.about.led

    @property
    def noise(self) -> Noise:
        """What it is shown in blanks."""
        return self.about.noise

    @property
    def conditioned(self) -> bool:
        """Whether a block also sees what was predicted in it the last time; see `Query.memory`."""
        return self.about.conditioned

    @property
    def cache(self) -> Cache | None:
        """What it keeps; `None`: nothing."""
        return self.about.cache
