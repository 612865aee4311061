"""What a guess was asked is all that is seen of it."""

from __future__ import annotations

import numpy as np

import mdsample
from mdsample import testing
from mdsample.core.marginals import Marginals
from mdsample.sampling.guess import Said, name
from mdsample.sampling.likely import Step
from mdsample.sampling.picked import Picked
from mdsample.sampling.sampler import Sampler, advance, choose, follow, rank
from mdsample.sampling.shared import rows_of
from mdsample.sampling.speculate import Speculation, Speculator
from mdsample.testing import ScriptedDenoiser
from mdsample.testing.worlds import LETTERS

SYMBOLS = testing.Symbols(LETTERS)
MODEL = ScriptedDenoiser(SYMBOLS)
CANVAS = mdsample.Template.parse("a{answer:4}").canvas(SYMBOLS, [{}])


def test_a_guess_that_was_asked_of_too_few_places_is_dropped() -> None:
    sampler = Sampler("whole+left-to-right+top(1)")
    plan = sampler.plan(MODEL, CANVAS)
    state, _ = sampler.step(MODEL, sampler.start(MODEL, CANVAS, plan), plan)
    rows = np.zeros(1, np.int32)
    query = next(advance(plan, state, rows))
    asked = query.wanted[0, : CANVAS.tokens.shape[1]]
    for place in (None, *np.flatnonzero(asked).tolist()):
        covered = asked & (np.arange(len(asked)) != (-1 if place is None else place))
        speculator = Speculator(plan, CANVAS, Speculation(1), Step(advance, rank, choose, follow))
        known = {name(plan, state, 0): Said(MODEL.predict(query), 0, covered, query.tokens[0])}
        speculator._known[0] = known
        step = speculator._known_already(state, rows)
        assert (step is not None) == (place is None)
        assert bool(known) == (place is None)


def test_picked_rows_show_what_is_wanted_and_no_more() -> None:
    sampler = Sampler("whole+left-to-right+top(1)")
    plan = sampler.plan(MODEL, CANVAS)
    prediction = MODEL.predict(next(advance(plan, sampler.start(MODEL, CANVAS, plan), np.zeros(1, np.int32))))
    shape = prediction.marginals.token.shape
    wanted = np.zeros(shape, np.bool_)
    wanted[0, np.flatnonzero(prediction.marginals.token[0])[:1]] = True
    picked, unseen = Picked.within([(prediction, 0)], wanted).marginals, Marginals.unseen(*shape)
    for field in ("token", "log_probability", "entropy"):
        array, theirs, blank = (getattr(side, field) for side in (picked, prediction.marginals, unseen))
        np.testing.assert_array_equal(array[wanted], theirs[wanted])
        np.testing.assert_array_equal(array[~wanted], blank[~wanted])
        assert not np.array_equal(theirs, blank)


def test_rows_of_a_query_keep_their_languages() -> None:
    sampler = Sampler("whole+top(1)+regex('[ab]+',slot='answer')")
    canvas = mdsample.Template.parse("a{answer:4}").canvas(SYMBOLS, [{}, {}])
    plan = sampler.plan(MODEL, canvas)
    query = next(advance(plan, sampler.start(MODEL, canvas, plan), np.arange(2, dtype=np.int32)))
    one = rows_of(query, np.array([False, True]))
    assert len(one.tokens) == 1 and [span.row for span in one.restriction.spans] == [0]
    np.testing.assert_array_equal(MODEL.predict(one).marginals.entropy[0], MODEL.predict(query).marginals.entropy[1])
