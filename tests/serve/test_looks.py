"""What the page is told of a prediction: the second most probable token, which no statistic names."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_serve.answering import _runners  # pyright: ignore[reportPrivateUsage]

from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.arrays import Bools
from mdsample.core.language import Span
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.models.denoiser import Query
from mdsample.policy.guide import NoGuide
from mdsample.testing.languages import random_language


def asked(wanted: Bools, size: int, spans: tuple[Span, ...] = ()) -> Query:
    everything = Restriction(np.ones((1, size), np.bool_), np.zeros(wanted.shape, np.int32), spans)
    names = Rows([(0, n) for n in range(len(wanted))], np.zeros(len(wanted), np.int32))
    blank = np.zeros(wanted.shape, np.int32)
    return Query(blank, np.ones(wanted.shape, np.bool_), wanted, ~wanted, everything, NoGuide(), names)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 30), st.booleans())
def test_the_second_most_probable_token_is_named(seed: int, size: int, languages: bool) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.random((2, 5)) < 0.8
    wanted[:, :2] = True
    span = Span(1, np.arange(2, dtype=np.int32), np.full(2, -1, np.int32), random_language(rng, size, 2))
    query = asked(wanted, size, (span,) if languages else ())
    line, position = (x.astype(np.int32) for x in np.nonzero(wanted))
    scores = rng.normal(size=(len(line), size)) * 3
    prediction = NumpyPrediction(scores, wanted, query.restriction, query.guide)
    seen = prediction.marginals.take(line, position)
    found = _runners(query, prediction, line, position, seen.token)
    free = ~(languages & (line == 1) & (position < 2))
    np.testing.assert_array_equal(found[free], np.argsort(-scores, 1)[free, 1])
    assert (found[~free] == -1).all()


def test_what_rounding_hides_is_not_named() -> None:
    wanted = np.ones((1, 1), np.bool_)
    query, zero = asked(wanted, 3), np.zeros(1, np.int32)
    prediction = NumpyPrediction(np.array([[0.0, -200.0, -300.0]]), wanted, query.restriction, query.guide)
    assert _runners(query, prediction, zero, zero, zero).tolist() == [-1]
