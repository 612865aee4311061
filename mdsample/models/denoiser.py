"""The one boundary: what the loop asks of a model on a backend, and what it gets back."""

from __future__ import annotations

from typing import Protocol

import attrs

from mdsample.core.arrays import Bools, Doubles, Floats, Ints
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache
from mdsample.policy.draw import Draw
from mdsample.policy.guide import Guide


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
    #: what tells the rows apart from look to look, for models that keep something between them
    rows: Rows


class Prediction(Protocol):
    """One forward pass, kept where the model is; only small statistics are on the host."""

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen outside `query.wanted`."""
        ...

    def draw(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw, restriction: Restriction | None
    ) -> tuple[Ints, Floats]:
        """Draws a token at each of N places by inverse CDF.

        `rows`, `positions` `[N]` index the ask; `uniforms [N]` float64 in (0, 1); `restriction` replaces the ask's
        (it is never wider). Returns tokens `[N]` int32 and their probabilities `[N]` float32 under the model's
        conditional at temperature 1.
        """
        ...

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]` float32, nats, of stated tokens at N places, at temperature 1.

        `rows`, `positions`, `tokens` `[N]`; under the ask's guide and restriction, −inf for a token that it forbids.
        Raises `ValueError` for a place nobody looked at and for a token id that does not exist.
        """
        ...

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """KL(this look ‖ `before`) `[N]` float32, nats, at N places that both saw, at temperature 1.

        `rows`, `positions`, `before_rows` `[N]`: row `rows[n]` of this ask was row `before_rows[n]` of that one, in the
        same positions. Each under its own ask's guide and restriction; +inf where a token is possible that was
        forbidden before. Raises `ValueError` for a place nobody looked at and for a look of another backend.
        """
        ...


class Denoiser(Protocol):
    """A model on a backend."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def backend(self) -> str:
        """What it runs on."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokens."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of logits, at least `tokenizer.size`."""
        ...

    @property
    def template(self) -> str:
        """Text of the template that suits the model."""
        ...

    @property
    def max_length(self) -> int:
        """The longest row it can take, tokens."""
        ...

    @property
    def cache(self) -> Cache | None:
        """What it keeps from look to look, and whether that makes it approximate; `None`: nothing."""
        ...

    def predict(self, query: Query) -> Prediction:
        """One forward pass (two under guidance)."""
        ...
