"""The one boundary: what the loop asks of a model on a backend, and what it gets back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs
import numpy as np

from mdsample.arrays import Bools, Doubles, Floats, Ints
from mdsample.cache import Cache, Rows
from mdsample.draw import Draw
from mdsample.guide import Guide
from mdsample.marginals import Marginals


class Tokenizer(Protocol):
    """Text to token ids and back, with the special tokens that sampling needs."""

    @property
    def size(self) -> int:
        """Number of tokens; ids from here on exist in a padded embedding only and are never sampled."""
        ...

    @property
    def mask_id(self) -> int:
        """The mask token."""
        ...

    @property
    def end_id(self) -> int | None:
        """The token that ends and pads a text, if there is one."""
        ...

    @property
    def start(self) -> tuple[int, ...]:
        """Tokens that stand before every text; a template that begins with them does not get them twice."""
        ...

    @property
    def special(self) -> Sequence[str]:
        """Texts of the special tokens; they mean the token in a template and plain text in what users fill in."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens in it are spelled out like any other characters."""
        ...

    def special_id(self, text: str) -> int:
        """The id of a special token."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out."""
        ...


def token_id(token: int | str, tokenizer: Tokenizer, vocab_size: int, part: str) -> int:
    """The id of one token given as id or text; `ValueError` if it is not exactly one token."""
    if isinstance(token, int):
        if token >= vocab_size:
            raise ValueError(f"{part}: token id {token} does not exist; ids go from 0 to {vocab_size - 1}")
        return token
    if token in tokenizer.special:
        return tokenizer.special_id(token)
    found = tokenizer.encode(token)
    if len(found) != 1:
        raise ValueError(f"{part}: {token!r} is {len(found)} tokens ({found}); give the text of one token, or its id")
    return found[0]


@attrs.frozen(eq=False)
class Restriction:
    """Which tokens may stand where: position `[b, l]` may hold the tokens of `sets[index[b, l]]`.

    `sets [K, V]` bool, `index [B, L]` int32. `group [B, L]` int32 is −1, or the number of a group of positions that
    constrain one another: after one of them is drawn, the sets of the others are computed anew.
    """

    sets: Bools
    index: Ints
    group: Ints

    def __and__(self, other: Restriction) -> Restriction:
        """Both restrictions at once. A position is in the left group, else in the right one."""
        pairs = self.index.astype(np.int64) * len(other.sets) + other.index
        used, index = np.unique(pairs, return_inverse=True)
        left, right = np.divmod(used, len(other.sets))
        group = np.where(self.group >= 0, self.group, np.where(other.group >= 0, other.group + _GROUPS, -1))
        return Restriction(
            self.sets[left] & other.sets[right],
            index.reshape(pairs.shape).astype(np.int32),
            group.astype(np.int32),
        )


_GROUPS = 1 << 16  # keeps the group numbers of two restrictions apart


@attrs.frozen(eq=False)
class Ask:
    """One forward pass over B rows; arrays `[B, L]`."""

    #: int32; the mask token in blanks
    tokens: Ints
    #: false in padding, which must not influence anything
    valid: Bools
    #: positions whose statistics are wanted
    looked: Bools
    #: fixed text (the part that guidance hides)
    fixed: Bools
    restriction: Restriction
    guide: Guide
    #: what tells the rows apart from look to look, for models that keep something between them
    rows: Rows


class Look(Protocol):
    """One forward pass, kept where the model is; only small statistics are on the host."""

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen outside `ask.looked`."""
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

    def divergence(self, rows: Ints, positions: Ints, before: Look, before_rows: Ints) -> Floats:
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

    def look(self, ask: Ask) -> Look:
        """One forward pass (two under guidance)."""
        ...
