"""Rows of predictions as predictions of their own: a part of one, or rows picked out of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs, arange64
from mdsample.core.credits import Credits
from mdsample.core.marginals import Marginals
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Draw


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
        return Marginals(*(getattr(self.whole.marginals, field.name)[region] for field in attrs.fields(Marginals)))

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
        return _compared([self] * len(rows), rows, positions, before, before_rows)


@final
@attrs.frozen(eq=False)
class Picked(Prediction):
    """R rows, each of some prediction, of which no more is seen than is wanted here."""

    #: of each row, the prediction and the row in it, `[R]`
    of: Sequence[Prediction]
    row: Sequence[int]
    wanted: Bools

    @property
    def marginals(self) -> Marginals:
        """Statistics of its rows."""
        return self._marginals

    @cached_property
    def _marginals(self) -> Marginals:
        out = Marginals.unseen(*self.wanted.shape)
        for prediction, mine in _grouped(self.of):
            theirs = prediction.marginals
            width = min(self.wanted.shape[1], theirs.token.shape[1])
            at = (np.array(mine)[:, None], arange64(width)[None])
            there = (np.array([self.row[line] for line in mine])[:, None], arange64(width)[None])
            for name in (field.name for field in attrs.fields(Marginals)):
                array = getattr(out, name)
                array[at] = np.where(self.wanted[at], getattr(theirs, name)[there], array[at])
        return out

    @property
    def credits(self) -> None:
        """Unknown: what was said to one text of a row earns nothing for another, so no step is guessed under it."""

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        """As each prediction draws."""
        token, probability = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.float32)
        for prediction, which, theirs in self._asked(rows):
            token[which], probability[which] = prediction.draw(theirs, positions[which], uniforms[which], how)
        return token, probability

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """As each prediction."""
        out = np.zeros(len(rows), np.float32)
        for prediction, which, theirs in self._asked(rows):
            out[which] = prediction.log_probabilities(theirs, positions[which], tokens[which])
        return out

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """As each prediction; `before` may be of other ones."""
        return _compared([self] * len(rows), rows, positions, before, before_rows)

    def _asked(self, rows: Ints) -> Iterator[tuple[Prediction, Longs, Ints]]:
        """Each prediction, which of `rows` are for it, and their rows there."""
        lines: list[int] = rows.tolist()
        for prediction, places in _grouped([self.of[line] for line in lines]):
            theirs = np.array([self.row[lines[n]] for n in places], np.int32)
            yield prediction, np.array(places, np.int64), theirs


def _grouped(predictions: Sequence[Prediction]) -> list[tuple[Prediction, list[int]]]:
    """Each prediction once, and where it stands."""
    places: dict[int, list[int]] = {}
    for number, prediction in enumerate(predictions):
        places.setdefault(id(prediction), []).append(number)
    return [(predictions[where[0]], where) for where in places.values()]


def _compared(now: Sequence[Prediction], rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
    """`divergence` of rows of predictions and rows of earlier ones, between those that a backend made."""
    pairs: dict[tuple[int, int], list[int]] = {}
    ours = [_made(prediction, row) for prediction, row in zip(now, rows.tolist(), strict=True)]
    theirs = [_made(before, row) for row in before_rows.tolist()]
    for number, ((a, _), (b, _)) in enumerate(zip(ours, theirs, strict=True)):
        pairs.setdefault((id(a), id(b)), []).append(number)
    out = np.zeros(len(rows), np.float32)
    for numbers in pairs.values():
        (a, _), (b, _) = ours[numbers[0]], theirs[numbers[0]]
        lines, old = (np.array([made[n][1] for n in numbers], np.int32) for made in (ours, theirs))
        out[numbers] = a.divergence(lines, positions[numbers], b, old)
    return out


def _made(prediction: Prediction, row: int) -> tuple[Prediction, int]:
    """What a backend made, of which this is a row, and the row in it."""
    while isinstance(prediction, Part | Picked):
        if isinstance(prediction, Part):
            prediction, row = prediction.whole, row + prediction.first
        else:
            prediction, row = prediction.of[row], prediction.row[row]
    return prediction, row
