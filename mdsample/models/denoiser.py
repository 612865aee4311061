"""The one boundary: what the loop asks of a model on a backend, and what it gets back."""

from __future__ import annotations

import abc
from typing import Protocol

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Ints
from mdsample.core.credits import Credits
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache
from mdsample.policy.draw import Draw
from mdsample.policy.guide import Cfg, Cooling, Credit, Guide, NoGuide


@attrs.frozen(eq=False)
class Query:
    """One forward pass over B rows; arrays `[B, L]`."""

    #: int32; the mask token in blanks
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
            case NoGuide() | Cooling() | Credit():
                return (self.tokens,)
            case Cfg():
                return self.tokens, np.where(self.fixed, np.int32(mask_id), self.tokens)
            case _:
                known = "none, cfg, cooling, credit"
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
    def cache(self) -> Cache | None:
        """What it keeps; `None`: nothing."""
        return self.about.cache
