"""Random languages, and what a model must say of slots that hold one."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.testing import assert_allclose

from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.arrays import Doubles, Ints
from mdsample.core.language import Automaton, Span
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import NoGuide

_DRAWS = (Greedy(), Temperature(), Temperature(0.6), Temperature(1.7, top_k=3))
#: blanks of a slot, and draws of each kind from it
_BLANKS, _TIMES = 4, 6
#: how far two laws may lie apart, in scores and in their CDFs
_EDGE = 1e-3


def random_language(rng: np.random.Generator, size: int, length: int, states: int = 4, symbols: int = 5) -> Automaton:
    """An automaton over `size` tokens that some text of `length` tokens is in.

    It has at most so many states and classes, class 0 included. Some tokens may stand nowhere.
    """
    symbols = min(symbols, size + 1)
    classes = rng.integers(0, symbols, size).astype(np.int32)
    classes[rng.permutation(size)[: symbols - 1]] = np.arange(1, symbols)
    table = np.where(rng.random((states, symbols)) < 0.5, rng.integers(0, states, (states, symbols)), -1)
    # a way on from everywhere
    table[np.arange(states), rng.integers(1, symbols, states)] = rng.integers(0, states, states)
    table[:, 0] = -1
    at = 0
    for _ in range(length):
        onward: list[int] = [state for state in table[at].tolist() if state >= 0]
        at = int(rng.choice(onward))
    accepting = rng.random(states) < 0.3
    accepting[at] = True
    source, symbol = (index.astype(np.int32) for index in np.nonzero(table >= 0))
    return Automaton(classes, source, symbol, table[source, symbol].astype(np.int32), accepting)


def check_languages(denoiser: Denoiser, query: Query, tolerance: float) -> None:
    """Raises `AssertionError` where what is said and drawn under languages is not what the model's own law gives.

    `query`: without languages. In each row some blanks become a slot that holds a random language, one of them with a
    token written already. Several places of a slot are drawn at once, from their joint law; where a little noise in the
    scores or the uniforms changes what is drawn, nothing is compared.
    """
    held = _held(denoiser, query)
    rows, positions = (index.astype(np.int32) for index in np.nonzero(held.wanted))
    free = denoiser.predict(attrs.evolve(held, restriction=query.restriction))
    vocab = np.arange(denoiser.vocab_size, dtype=np.int32)
    row, position = (np.repeat(index, len(vocab)) for index in (rows, positions))
    logs = free.log_probabilities(row, position, np.tile(vocab, len(rows)))
    table: Doubles = logs.reshape(len(rows), -1).astype(np.float64)
    noise = np.random.default_rng(3).normal(scale=_EDGE, size=(2, *table.shape))
    own, *others = (
        NumpyPrediction(table + shift, held.wanted, held.restriction, NoGuide()) for shift in (0 * noise[0], *noise)
    )
    found = denoiser.predict(held)
    for name in ("log_probability", "second", "entropy"):
        ours, theirs = (getattr(said.marginals, name)[held.wanted] for said in (found, own))
        assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg=f"{name} under a language")
    token = own.marginals.token[rows, positions]
    ours, theirs = (said.log_probabilities(rows, positions, token) for said in (found, own))
    assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg="log-probabilities under a language")
    agreed = 0
    for turn, how in enumerate(_DRAWS * _TIMES):
        agreed += _same_draws(found, (own, *others), held, how, np.random.default_rng(turn))
    assert agreed, "no draw was far enough from an edge to be compared"


def _held(denoiser: Denoiser, query: Query) -> Query:
    """The query with a slot in each row that holds a language."""
    rng, real = np.random.default_rng(2), np.flatnonzero(query.restriction.sets[0])
    tokens, wanted, spans = query.tokens.copy(), query.wanted.copy(), list[Span]()
    for row in range(len(tokens)):
        positions = np.flatnonzero(query.wanted[row])[:_BLANKS].astype(np.int32)
        inner = random_language(rng, len(real), len(positions))
        classes = np.zeros(denoiser.vocab_size, np.int32)
        classes[real] = inner.classes
        language = attrs.evolve(inner, classes=classes)
        written = np.full(len(positions), -1, np.int32)
        if row == 1 and len(positions) > 1:
            written[0] = tokens[row, positions[0]] = _first(language, len(positions))
            wanted[row, positions[0]] = False
        spans.append(Span(row, positions, written, language, weighed=row != 2))
    restriction = attrs.evolve(query.restriction, spans=tuple(spans))
    return attrs.evolve(query, tokens=tokens, wanted=wanted, fixed=query.valid & ~wanted, restriction=restriction)


def _first(language: Automaton, length: int) -> int:
    """A token that a text of so many tokens begins with."""
    edges = list(zip(language.source.tolist(), language.symbol.tolist(), language.target.tolist(), strict=True))
    ahead = set(np.flatnonzero(language.accepting).tolist())
    for _ in range(length - 1):
        ahead = {source for source, _, target in edges if target in ahead}
    symbol = next(symbol for source, symbol, target in edges if source == 0 and target in ahead)
    return int(np.flatnonzero(language.classes == symbol)[0])


def _same_draws(
    found: Prediction, own: Sequence[NumpyPrediction], query: Query, how: Draw, rng: np.random.Generator
) -> int:
    """Draws all blanks of each slot at once, in a random order; how many slots were compared."""
    compared = 0
    for span in query.restriction.spans:
        positions: Ints = rng.permutation(span.positions[span.tokens < 0]).astype(np.int32)
        rows, uniforms = np.full(len(positions), span.row, np.int32), rng.random(len(positions))
        tokens, chance = found.draw(rows, positions, uniforms, how)
        shifts = zip(own, (0.0, -_EDGE, _EDGE), strict=True)
        near = [each.draw(rows, positions, np.clip(uniforms + shift, 0, 1 - 1e-9), how) for each, shift in shifts]
        if any((other != near[0][0]).any() for other, _ in near):
            continue
        compared += 1
        assert (tokens == near[0][0]).all(), f"{how}: what is drawn under a language is not drawn from the joint law"
        assert_allclose(chance, near[0][1], rtol=1e-2, atol=1e-4, err_msg=f"{how}: probabilities of what is drawn")
    return compared
