"""Rows of predictions as predictions of their own: a part of one, or rows put together from several."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs
from mdsample.core.credits import Credits
from mdsample.core.marginals import Marginals
from mdsample.models.denoiser import Memory, Prediction
from mdsample.policy.draw import Draw
from mdsample.sampling.conditioning import memories

_FIELDS = tuple(field.name for field in attrs.fields(Marginals))


@final
@attrs.frozen(eq=False)
class Part(Prediction):
    """Some rows of a prediction."""

    whole: Prediction
    #: the first of its rows in the whole
    first: int
    rows: int
    width: int

    @property
    def marginals(self) -> Marginals:
        """Statistics of its rows."""
        region = (slice(self.first, self.first + self.rows), slice(self.width))
        whole = self.whole.marginals
        return Marginals(*(getattr(whole, name)[region] for name in _FIELDS))

    @property
    def memories(self) -> Sequence[Memory]:
        """What a self-conditioned model kept of its rows."""
        return memories(self.whole)[self.first : self.first + self.rows]

    @property
    def credits(self) -> Credits | None:
        """Of its rows."""
        credits = self.whole.credits
        return credits and credits.take(np.arange(self.first, self.first + self.rows), self.width)

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        """As the whole draws."""
        return self.whole.draw(rows + np.int32(self.first), positions, uniforms, how)

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """As the whole."""
        return self.whole.log_probabilities(rows + np.int32(self.first), positions, tokens)

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """As the whole; `before` may be a part of another prediction."""
        return _compared(self, rows, positions, before, before_rows)


@final
@attrs.frozen(eq=False)
class Picked(Prediction):
    """R rows, every position as one row of some prediction has it; nothing else is seen of them."""

    #: rows of predictions, `[K]`: the prediction, and the row in it
    of: Sequence[tuple[Prediction, int]]
    #: which of them each position is taken from, `[R, L]`, −1 where nothing is seen
    source: Ints
    #: whether each row draws by itself: several that take a slot with a language from one row must not be one draw
    apart: bool = False

    @staticmethod
    def within(of: Sequence[tuple[Prediction, int]], wanted: Bools) -> Picked:
        """Whole rows, R in number, of which no more is seen than is `wanted [R, L]`."""
        return Picked(of, np.where(wanted, np.arange(len(of))[:, None], -1).astype(np.int32))

    @property
    def marginals(self) -> Marginals:
        """Statistics of its rows."""
        return self._marginals

    @cached_property
    def _marginals(self) -> Marginals:
        out = Marginals.unseen(*self.source.shape)
        row, position = np.nonzero(self.source >= 0)
        source = self.source[row, position]
        for sources in _together([id(prediction) for prediction, _ in self.of]):
            which = np.isin(source, sources) if len(sources) < len(self.of) else slice(None)
            theirs, at = self.of[sources[0]][0].marginals, (row[which], position[which])
            there = self._rows[source[which]], position[which]
            for name in _FIELDS:
                getattr(out, name)[at] = getattr(theirs, name)[there]
        return out

    @cached_property
    def _rows(self) -> Ints:
        return np.array([row for _, row in self.of], np.int32)

    @property
    def credits(self) -> None:
        """Unknown: what was said to one text of a row earns nothing for another, so no step is guessed under it."""

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        """As each prediction draws."""
        token, probability = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.float32)
        for prediction, which, theirs in self._asked(rows, positions):
            token[which], probability[which] = prediction.draw(theirs, positions[which], uniforms[which], how)
        return token, probability

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """As each prediction."""
        out = np.zeros(len(rows), np.float32)
        for prediction, which, theirs in self._asked(rows, positions):
            out[which] = prediction.log_probabilities(theirs, positions[which], tokens[which])
        return out

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """As each prediction; `before` may be of other ones."""
        return _compared(self, rows, positions, before, before_rows)

    def _asked(self, rows: Ints, positions: Ints) -> Iterator[tuple[Prediction, Longs, Ints]]:
        """Each prediction, which of the places are for it, and their rows there."""
        sources: list[int] = self.source[rows, positions].tolist()
        made = [self.of[source] for source in sources]
        lines: list[int] = rows.tolist() if self.apart else [0] * len(rows)
        for places in _together(list(zip([id(prediction) for prediction, _ in made], lines, strict=True))):
            prediction = made[places[0]][0]
            yield prediction, np.array(places, np.int64), np.array([made[n][1] for n in places], np.int32)


def _together(keys: Sequence[Hashable]) -> list[list[int]]:
    """Where each key stands."""
    places: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        places.setdefault(key, []).append(number)
    return list(places.values())


def _compared(now: Prediction, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
    """`divergence` of places of predictions and of earlier ones, between those that a backend made."""
    places = positions.tolist()
    ours = [_made(now, row, place) for row, place in zip(rows.tolist(), places, strict=True)]
    theirs = [_made(before, row, place) for row, place in zip(before_rows.tolist(), places, strict=True)]
    out = np.zeros(len(rows), np.float32)
    for numbers in _together([(id(a), id(b)) for (a, _), (b, _) in zip(ours, theirs, strict=True)]):
        (a, _), (b, _) = ours[numbers[0]], theirs[numbers[0]]
        lines, old = (np.array([made[n][1] for n in numbers], np.int32) for made in (ours, theirs))
        out[numbers] = a.divergence(lines, positions[numbers], b, old)
    return out


def _made(prediction: Prediction, row: int, position: int) -> tuple[Prediction, int]:
    """What a backend made, of which this is a place, and the row in it."""
    while isinstance(prediction, Part | Picked):
        if isinstance(prediction, Part):
            prediction, row = prediction.whole, row + prediction.first
        else:
            prediction, row = prediction.of[int(prediction.source[row, position])]
    return prediction, row
