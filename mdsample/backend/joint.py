"""Several places of a slot that holds a language, drawn from their joint law: each given those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs
import numpy as np

from mdsample.backend.languages import Languages, Weights
from mdsample.core.arrays import Doubles, Floats, Indices, Ints, Longs
from mdsample.core.language import Automaton
from mdsample.policy.draw import Greedy, Temperature


class Scores(Protocol):
    """What is asked of a prediction: see `mdsample.backend.host.BackendPrediction`."""

    #: what is measured in place of the conditional
    law: Temperature | None

    def masses(self, asked: Sequence[tuple[Automaton, Longs]], t: float) -> Sequence[Floats | Doubles]:
        """Log-masses of the classes, `[M, C]` each."""
        ...

    def drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, weights: Weights | None
    ) -> tuple[Ints, Floats | Doubles]:
        """Tokens and their log-probabilities, `[N]`."""
        ...


@attrs.frozen(eq=False)
class Places:
    """N places to be drawn."""

    rows: Ints
    positions: Ints
    uniforms: Doubles
    #: how many of its span are drawn before each, −1 without span
    turn: Ints
    #: its number in the prediction
    number: Longs

    def take(self, which: Indices) -> Places:
        """Some of them."""
        return Places(*(getattr(self, field.name)[which] for field in attrs.fields(Places)))


def draw_jointly(
    scores: Scores, languages: Languages, weights: Weights, places: Places, how: Greedy | Temperature
) -> tuple[Ints, Doubles]:
    """Tokens and their log-probabilities at temperature 1, `[N]`; `weights`: of the prediction."""
    cuts = isinstance(how, Temperature) and (how.top_k > 0 or how.top_p < 1 or how.min_p > 0)
    # what is cut off depends on every token's score
    draw = _by_turns if cuts or scores.law is not None else _by_class
    return draw(scores, languages, weights, places, how)


def _by_turns(
    scores: Scores, languages: Languages, weights: Weights, places: Places, how: Greedy | Temperature
) -> tuple[Ints, Doubles]:
    """One question for each turn."""
    token, logged = np.zeros(len(places.turn), np.int32), np.zeros(len(places.turn))
    written = [classes.copy() for classes in languages.written]
    for turn in range(int(places.turn.max()) + 1):
        now = np.flatnonzero(places.turn == turn if turn else places.turn <= 0)
        asked = places.take(now)
        token[now], logged[now] = scores.drawn(asked.rows, asked.positions, asked.uniforms, how, weights)
        for n in now[asked.turn >= 0].tolist():
            span, column = languages.at(int(places.number[n]))
            written[span][column] = languages.spans[span].language.classes[token[n]]
        weights = languages.weights(written)
    return token, logged


def _by_class(
    scores: Scores, languages: Languages, weights: Weights, places: Places, how: Greedy | Temperature
) -> tuple[Ints, Doubles]:
    """The classes on the host, one after the other; then one question for the tokens."""
    inside = np.flatnonzero(places.turn >= 0)
    numbers, uniforms = places.number[inside], places.uniforms.copy()
    warm: dict[int, Floats | Doubles] = {}
    if isinstance(how, Temperature) and how.t != 1:
        asked = [(language, numbers[where]) for language, where, _ in weights.at(numbers)]
        for (_, at), masses in zip(asked, scores.masses(asked, how.t), strict=True):
            warm.update(zip(at.tolist(), masses, strict=True))
    token, logged = np.zeros(len(places.turn), np.int32), np.zeros(len(places.turn))
    chosen = np.zeros(len(places.turn), np.int32)
    written = [classes.copy() for classes in languages.written]
    for turn in range(int(places.turn.max()) + 1):
        now = np.flatnonzero(places.turn == turn)
        which = {languages.at(int(places.number[n]))[0] for n in now} if turn else set[int]()
        found = languages.found(written, which)
        for n in now.tolist():
            number = int(places.number[n])
            span, column = languages.at(number)
            weight = found[span][column] if turn else weights.of(number)
            law = languages.mass(number) + weight
            if isinstance(how, Greedy):
                candidates, top = languages.tops(number)
                chosen[n] = np.lexsort((candidates, -(top + weight)))[0]
                token[n], logged[n] = candidates[chosen[n]], (top + weight)[chosen[n]] - np.logaddexp.reduce(law)
            else:
                heated = law if how.t == 1 else warm[number] + weight / how.t
                chosen[n], uniforms[n] = _class(heated, uniforms[n])
                logged[n] = law[chosen[n]] - np.logaddexp.reduce(law)
            written[span][column] = chosen[n]
    asked = np.flatnonzero(places.turn < 0) if isinstance(how, Greedy) else np.arange(len(places.turn))
    if len(asked):
        some = places.take(asked)
        within = scores.drawn(some.rows, some.positions, uniforms[asked], how, weights.only(numbers, chosen[inside]))
        token[asked] = within[0]
        logged[asked] += within[1]
    return token, logged


def _class(law: Doubles, uniform: float) -> tuple[int, float]:
    """The class that a uniform falls into, and where in it, as a uniform in [0, 1); `law [C]` log-probabilities."""
    share = np.exp(law - law.max())
    cdf = np.cumsum(share)
    goal = uniform * cdf[-1]
    chosen = int((cdf > goal).argmax())
    left = (goal - (cdf[chosen] - share[chosen])) / share[chosen]
    return chosen, float(np.clip(left, 0.0, np.nextafter(1.0, 0.0)))
