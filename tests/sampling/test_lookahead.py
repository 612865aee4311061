"""Looking ahead: how many passes are made and counted, and for which rows."""

from __future__ import annotations

from math import fsum
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdsample
from mdsample import testing
from mdsample.errors import ScoreError
from mdsample.models.denoiser import Query
from mdsample.policy.evidence import TrialEntropy
from mdsample.policy.view import Seen, Trials
from mdsample.scoring.methods import ChainRule
from mdsample.testing import ScriptedDenoiser, Symbols

SYMBOLS = Symbols(6)
CANVAS = mdsample.Template.parse("{reasoning:5}{answer:1}").canvas(SYMBOLS, [{}] * 3)


def asks_of(policy: str, canvas: mdsample.Canvas = CANVAS) -> tuple[mdsample.Result, list[Query]]:
    asks: list[Query] = []

    class Listening(ScriptedDenoiser):
        def predict(self, query: Any) -> Any:
            asks.append(query)
            return super().predict(query)

    return testing.run(mdsample.parse(policy), Listening(SYMBOLS, 4, 1.0), canvas), asks


@pytest.mark.parametrize("k", [2, 3, 9])
def test_a_step_is_a_look_and_one_more_with_a_row_for_each_place(k: int) -> None:
    result, asks = asks_of(f"whole+lookahead({k})")
    blanks = [6, 5, 4, 3, 2, 1]
    sizes = [size for n in blanks for size in (3, 3 * min(n, k))[: 1 + (n > 1)]]
    assert [len(query.tokens) for query in asks] == sizes
    # paid is what was tried: the last blank has no rival
    assert all(row.nfe == sum(1 + (min(n, k) if n > 1 else 0) for n in blanks) for row in result.rows)


def test_what_is_tried_is_the_best_token_of_the_most_certain_places() -> None:
    _, asks = asks_of("whole+lookahead(3)", CANVAS.take([0]))
    first = ScriptedDenoiser(SYMBOLS, 4, 1.0).predict(asks[0]).marginals
    places = np.sort(np.argsort(first.entropy[0])[:3])
    for tokens, wanted, place in zip(asks[1].tokens, asks[1].wanted, places, strict=True):
        expected = asks[0].tokens[0].copy()
        expected[place] = first.token[0, place]
        assert (tokens == expected).all()
        assert (wanted == (expected == SYMBOLS.mask_id)).all()


@pytest.mark.parametrize("own", [0, 1, 5])
def test_the_first_place_is_that_of_least_own_and_mean_remaining_entropy(own: int) -> None:
    toy = ScriptedDenoiser(SYMBOLS, 4, 1.0)
    for row in range(len(CANVAS)):
        result, asks = asks_of(f"whole+lookahead(3,own={own})", CANVAS.take([row]))
        first, tried = toy.predict(asks[0]).marginals, toy.predict(asks[1]).marginals
        places = np.sort(np.argsort(first.entropy[0])[:3])
        left = [tried.entropy[i][asks[1].wanted[i]].mean() for i in range(3)]
        best = places[np.argmin(own * first.entropy[0, places] + left)]
        assert result.rows[0].commits[0].position == best


def test_rows_that_are_tried_have_names_of_their_own() -> None:
    _, asks = asks_of("whole+lookahead(4)")
    rows, tried = set(asks[0].rows.keys), asks[1].rows.keys
    assert len(set(tried)) == len(tried) == 12 and not rows & set(tried)


def test_guidance_and_a_budget_count_what_is_tried() -> None:
    result, _ = asks_of("whole+lookahead(2)+cfg(1)")
    assert all(row.nfe == (5 * 3 + 1) * 2 for row in result.rows)
    result, _ = asks_of("whole+lookahead(2)+budget(9)")
    assert all((row.nfe, row.steps, row.unfilled) == (9, 3, 0) for row in result.rows)


def test_scores_try_nothing() -> None:
    with pytest.raises(ScoreError, match="lookahead tries places in further passes, and scores try none"):
        ChainRule(mdsample.Lookahead())


@pytest.mark.parametrize("k", [1, 1025])
def test_how_many_may_be_tried(k: int) -> None:
    with pytest.raises(ValueError, match="a whole number, at least 2 and at most 1024"):
        mdsample.Lookahead(k)


@given(st.integers(0, 2**32 - 1))
def test_what_trials_leave_is_the_mean_of_the_other_blanks_in_double_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blank = rng.random((2, 30)) < 0.7
    blank[:, :4] = True
    tried = np.array([0, 0, 1], np.int32), np.array([0, 3, 2], np.int32)
    entropy = (3 * rng.random((3, 30))).astype(np.float32)
    view: Any = SimpleNamespace(eligible=blank, batch=SimpleNamespace(blank=blank))
    answer: Any = SimpleNamespace(entropy=entropy)
    value = TrialEntropy(2).value(Seen(view, cast("Any", None), [], Trials(*tried, tried[1]), answer))
    for n, (row, place) in enumerate(zip(*tried, strict=True)):
        others = [float(entropy[n, other]) for other in np.flatnonzero(blank[row]) if other != place]
        assert value[row, place] == pytest.approx(fsum(others) / len(others), rel=1e-14)
    assert np.isinf(value).sum() == value.size - 3
