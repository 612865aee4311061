"""Toy: a distribution over token rows whose conditionals are known exactly, as a denoiser like any other.

B = rows, L = positions, V = tokens. A toy over V tokens has the tokens 0 … V − 1 and the mask token V, so an array of
tokens `[B, L]` says everything: what is known, and, by a V, what is not. A canvas may be shorter than the toy: the rest
of the row is then simply never asked for, and what is sampled is the law of its first positions.
"""

from __future__ import annotations

import abc
import string
from collections.abc import Mapping, Sequence
from typing import final

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.core.arrays import Doubles, Ints
from mdsample.core.canvas import Canvas
from mdsample.models.denoiser import About, Denoiser, Query

#: log-probability that stands for zero. Next to any real one its exponential is exactly 0; where a constraint leaves
#: nothing else, all that is left has it, and the conditional is uniform instead of 0 / 0
IMPOSSIBLE = -1e5

#: the most entries of a table that is written out
LARGEST_TABLE = 1 << 22


@final
@attrs.frozen
class ToyTokenizer:
    """One character a token: 0 … 9, a … z, A … Z, then on through Unicode; the mask token is `_`."""

    #: V, the number of tokens without the mask
    count: int

    @property
    def size(self) -> int:
        """V + 1: the mask token is the last."""
        return self.count + 1

    @property
    def mask_id(self) -> int:
        """V."""
        return self.count

    @property
    def end_id(self) -> int | None:
        """None: toy rows do not end."""
        return None

    @property
    def ends(self) -> frozenset[int]:
        """Nothing ends a row."""
        return frozenset()

    @property
    def turn_end(self) -> tuple[int, ...]:
        """Nothing: there are no chats."""
        return ()

    @property
    def start(self) -> tuple[int, ...]:
        """Nothing stands before a row."""
        return ()

    @property
    def special(self) -> Sequence[str]:
        """The mask token."""
        return ("_",)

    def encode(self, text: str) -> list[int]:
        """One token per character; `ValueError` for a character that is not a token."""
        tokens = {self._symbol(token): token for token in range(self.count)}
        if strange := [c for c in text if c not in tokens]:
            raise ValueError(f"{strange[0]!r} is not a token here; tokens: {''.join(tokens)}")
        return [tokens[c] for c in text]

    def special_id(self, text: str) -> int:
        """The mask token's id."""
        if text != "_":
            raise ValueError(f"{text!r} is not a special token here; there is only '_', the mask")
        return self.count

    def decode(self, tokens: Sequence[int]) -> str:
        """The characters; the mask token is left out."""
        return "".join(self._symbol(token) for token in tokens if token != self.count)

    def _symbol(self, token: int) -> str:
        plain = string.digits + string.ascii_letters
        return plain[token] if token < len(plain) else chr(0x100 + token)


class Toy(Denoiser):
    """An exactly known distribution over rows of `length` tokens out of `size`.

    Given something of probability zero, a conditional is uniform. A sampler gets there only after it has drawn, in
    parallel, tokens that do not go together, so the joint never visits such a row and no KL(joint ‖ law) depends on it.

    Asked about a known position, a toy tells what could stand there given all else that is known: the token itself is
    left out. (A network has seen it and may tell something else.)
    """

    def __init__(
        self,
        name: str,
        length: int,
        size: int,
        *,
        slots: Mapping[str, int] | None = None,
        given: Mapping[int, int] | None = None,
    ) -> None:
        """`slots`: names and lengths in the default canvas (one slot `text`); `given`: its known positions, tokens."""
        if length < 1 or size < 1:
            raise ValueError(f"{name}: needs at least one position and one token; got {length} and {size}")
        self.length = length
        self.size = size
        self.slots = dict(slots or {"text": length})
        # the template: the default slots, without what is given
        template = "".join(f"{{{slot}:{places}}}" for slot, places in self.slots.items())
        super().__init__(About(name, "exact", ToyTokenizer(size), size + 1, template, length))
        self.given = dict(given or {})

    @abc.abstractmethod
    def weights(self, tokens: Ints) -> Doubles:
        """Weights `[B, L, V]` of what could stand in each blank of `tokens [B, L]`, given all that is known.

        They need not sum to 1; all 0 means that what is known is impossible. Meaningless at known positions.
        """

    @abc.abstractmethod
    def log_prob(self, tokens: Ints) -> Doubles:
        """Log-probability `[B]`, nats, of what is known of each row of `tokens [B, L]`; a mask token is summed over."""

    def conditionals(self, tokens: Ints) -> Doubles:
        """Conditional distribution `[B, L, V]` of each blank of `tokens [B, L]`, given all that is known; float64."""
        weights = self.weights(tokens)
        total = weights.sum(2, keepdims=True)
        return np.divide(weights, total, out=np.full_like(weights, 1 / self.size), where=total > 0)

    def table(self) -> Doubles:
        """The probability of every row, shape `(V,) * L`; `ValueError` if that is more than 2^22 numbers."""
        if self.size**self.length > LARGEST_TABLE:
            raise ValueError(f"{self.name}: a table of {self.size}^{self.length} numbers is too large to write out")
        return np.exp(self.log_prob(every_row(self.length, self.size))).reshape((self.size,) * self.length)

    # the rest makes it a denoiser

    def canvas(
        self, rows: int = 1, slots: Mapping[str, int] | None = None, given: Mapping[int, int] | None = None
    ) -> Canvas:
        """Rows to fill: `slots` split the positions in order, `given` fills some of them in beforehand."""
        slots, given = self.slots if slots is None else slots, self.given if given is None else given
        numbers = [number for number, length in enumerate(slots.values()) for _ in range(length)]
        if len(numbers) > self.length:
            raise ValueError(f"{self.name} has {self.length} positions; the slots {dict(slots)} need {len(numbers)}")
        for position, token in given.items():
            if not (0 <= position < len(numbers) and 0 <= token < self.size):
                raise ValueError(f"{self.name}: position {position} cannot be given as token {token}")
        row = [given.get(position, self.size) for position in range(len(numbers))]
        blank = [position not in given for position in range(len(numbers))]
        return Canvas.of_rows([row] * rows, [numbers] * rows, tuple(slots), self.size, blank=[blank] * rows)

    def padded(self, tokens: Ints) -> Ints:
        """`tokens [B, ≤ L]` with mask tokens up to the toy's length."""
        missing = self.length - tokens.shape[1]
        return np.pad(tokens, ((0, 0), (0, missing)), constant_values=self.size) if missing else tokens

    def predict(self, query: Query) -> NumpyPrediction:
        """The exact conditionals of `query`, in float64."""
        scores = guided([self._scores(query, tokens) for tokens in query.passes(self.size)], query.guide)
        scores[np.isneginf(scores)] = IMPOSSIBLE
        return NumpyPrediction(
            scores, query.wanted, query.restriction, query.guide, tuning=query.tuning, credits=query.credits
        )

    def _scores(self, query: Query, tokens: Ints) -> Doubles:
        known = self.padded(np.where(query.valid, tokens, np.int32(self.size)))
        probability = self.conditionals(known)[:, : tokens.shape[1]]
        row, position = np.nonzero(query.wanted & query.valid & (tokens != self.size))
        if len(row):
            hidden, line = known[row], np.arange(len(row))
            hidden[line, position] = self.size
            probability[row, position] = self.conditionals(hidden)[line, position]
        probability = probability[query.wanted]
        scores = np.full((len(probability), self.size + 1), -np.inf)
        with np.errstate(divide="ignore"):
            scores[:, : self.size] = np.log(probability)
        return scores


def every_row(length: int, size: int) -> Ints:
    """All rows of `length` tokens out of `size`, in the order of a table's entries, `[V^L, L]`."""
    number = np.arange(size**length, dtype=np.int64)[:, None]
    return (number // size ** np.arange(length - 1, -1, -1, dtype=np.int64) % size).astype(np.int32)


def distribution(values: object, what: str, ndim: int | None = None) -> Doubles:
    """`values` as float64, scaled so that the last axis sums to 1; `ValueError` if that cannot be a distribution."""
    array: NDArray[np.float64] = np.asarray(values, np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{what} needs {ndim} axes; got shape {array.shape}")
    if not array.size or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"{what} must hold numbers that are finite and at least 0")
    total = array.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise ValueError(f"{what} sums to 0; give some entry a positive weight")
    return array / total
