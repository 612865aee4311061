"""Rules as they are published, against their own words told again in plain loops."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample import exact
from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.arrays import Bools, Floats
from mdsample.core.marginals import Marginals
from mdsample.core.template import Template
from mdsample.models.decoding import DECODING
from mdsample.models.denoiser import Query
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import Cooling
from mdsample.policy.order import LeftToRight
from mdsample.policy.parsing import parse
from mdsample.policy.selection import AboveConfidence, Factor, Hierarchy, Selection, Top, dream_schedule
from mdsample.policy.view import Ranked, View
from mdsample.policy.window import Whole
from mdsample.sampling.row import Row
from mdsample.testing.toys import ScriptedDenoiser, Symbols

few = settings(max_examples=20, deadline=None)
CONFIDENCES = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=9)


def run(policy: str, length: int, seed: int = 0, sharpness: float = 3.0) -> Row:
    model = ScriptedDenoiser(Symbols(5), seed, sharpness)
    canvas = Template.parse(f"ab{{text:{length}}}").canvas(model.tokenizer, [{}])
    return mdsample.Sampler(policy, seed=seed).run(model, canvas).rows[0]


def shares(row: Row) -> list[int]:
    """How many tokens each step wrote."""
    return np.bincount([commit.step for commit in row.commits], minlength=row.steps).tolist()


# Dream


def dream(blanks: int, steps: int) -> list[int]:
    """Its counts in exact arithmetic, without those that are 0."""
    left, counts, end = Fraction(blanks), list[int](), Fraction(1, 1000)
    times = [1 - (1 - end) * i / steps for i in range(steps + 1)]
    for i in range(steps):
        count = int(left if i == steps - 1 else left * (1 - times[i + 1] / times[i]))
        left -= count
        counts.append(count)
    return [count for count in counts if count]


@pytest.mark.parametrize(("blanks", "steps"), [(64, 64), (64, 32), (64, 20), (100, 7), (5, 64), (1, 1), (128, 512)])
def test_dream_fills_more_towards_the_end(blanks: int, steps: int) -> None:
    after, left, counts = dream_schedule(blanks, steps), blanks, list[int]()
    while left:
        counts.append(left - int(after[left]))
        left = int(after[left])
    assert counts == dream(blanks, steps)


def test_as_many_steps_as_tokens_take_dream_one_pass_less() -> None:
    row = run("whole+entropy+dream-steps(64)", 64)
    assert shares(row) == [1] * 62 + [2]


@few
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 9))
def test_off_its_schedule_it_ends_as_well(blanks: int, steps: int, size: int) -> None:
    row = run(f"blocks({size})+entropy+dream-steps({steps})", blanks)
    assert sum(shares(row)) == blanks and min(shares(row)) > 0


# RND1


@few
@given(st.integers(1, 40), st.integers(1, 50))
def test_shares_are_spread(blanks: int, steps: int) -> None:
    filled = np.cumsum(shares(run(f"whole+entropy+steps({steps},shares='spread')", blanks)))
    if steps <= blanks:
        assert filled.tolist() == [-(-blanks * i // steps) for i in range(1, steps + 1)]
    else:
        assert filled.tolist() == list(range(1, blanks + 1))


# Thresholds and counts


def ranked(confidence: list[float]) -> Ranked:
    c = np.sort(np.array([confidence], np.float32))[:, ::-1]
    n = np.array([c.shape[1]], np.int32)
    return Ranked(n, np.arange(c.shape[1], dtype=np.int32)[None], c, c, 1 - c)


def number(selection: Selection, confidence: list[float]) -> int:
    nothing: Any = None  # these rules read the ranking alone
    return int(selection.count(nothing, ranked(confidence))[0])


@given(CONFIDENCES, st.sampled_from([0.3, 0.75, 1.0, 2.0]))
def test_the_factor_rule_as_its_code_has_it(confidence: list[float], factor: float) -> None:
    c = np.sort(np.array(confidence, np.float32))[::-1].astype(np.float64).tolist()
    passed = 1  # the first is never tested
    while passed < len(c) and c[passed] >= 1 - factor / (passed + 2):
        passed += 1
    expected = len(c) if passed == len(c) - 1 else passed
    assert number(Factor(factor, rule="published"), confidence) == expected
    assert number(Factor(factor), confidence) <= passed
    assert number(Factor(0.75, rule="published"), [0.1, 0.1]) == 2  # both, though neither is sure


@given(CONFIDENCES, st.integers(1, 5))
def test_at_least_so_many(confidence: list[float], least: int) -> None:
    found = number(AboveConfidence(0.5, at_least=least), confidence)
    assert found == max(sum(np.float32(c) >= 0.5 for c in confidence), least)


def seen(eligible: Bools, confidence: Floats) -> View:
    """What a selection sees that looks at the top probabilities alone."""
    unseen = Marginals.unseen(*eligible.shape)
    marginals = Marginals(unseen.token, np.log(np.maximum(confidence, 1e-30)), unseen.second, unseen.entropy)
    nothing: Any = None
    return View(nothing, marginals, eligible, eligible, nothing)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=12))
def test_the_best_of_every_run_goes(row: list[tuple[bool, int]]) -> None:
    blank = np.array([[is_blank for is_blank, _ in row]])
    c = np.array([[value / 20 for _, value in row]], np.float32)
    found = Hierarchy(0.8, low=0.3).first(seen(blank, c))[0]
    expected = np.zeros(len(row), np.bool_)
    position = 0
    while position < len(row):
        stop = position
        while stop < len(row) and blank[0, stop]:
            stop += 1
        if stop > position:
            best = max(range(position, stop), key=lambda i: (c[0, i], -i))
            expected[best] = c[0, best] > np.float32(0.3)
        position = max(stop, position + 1)
    assert (found == (expected | (blank[0] & (c[0] > np.float32(0.8))))).all()


@few
@given(st.integers(0, 99))
def test_runs_are_cut_from_within(seed: int) -> None:
    row = run("whole+hierarchy(0.9,low=0.2)", 16, seed, 8.0)
    assert sum(shares(row)) == 16


# Ends last


class Spy(ScriptedDenoiser):
    """Keeps its first prediction."""

    first: NumpyPrediction | None = None

    def predict(self, query: Query) -> NumpyPrediction:
        found = super().predict(query)
        self.first = self.first or found
        return found


@few
@given(st.integers(0, 99), st.sampled_from([0.0, 0.5]))
def test_ends_go_last_and_others_by_what_they_are_among_others(seed: int, noise: float) -> None:
    model = Spy(Symbols(2), seed, 4.0)
    canvas = Template.parse("ab{text:9}").canvas(model.tokenizer, [{}])
    # noise of a scale that moves nothing beyond the ends
    policy = f"whole+confidence(ends='last',noise={noise * 1e-9})+top(1)"
    first = mdsample.Sampler(policy).run(model, canvas).rows[0].commits[0]
    assert model.first is not None
    row, position = np.zeros(9, np.int32), np.arange(2, 11, dtype=np.int32)
    law = model.first.probabilities(row, position, Temperature(1.0))
    ends = law.argmax(1) == model.tokenizer.end_id
    score = np.where(ends, 0, law.max(1) / (1 - law[:, 2]))
    assert ends.all() or first.position - 2 == int(score.argmax())


# Cooling


@pytest.mark.parametrize(
    "how", [{"t": 0.5}, {"t": 2.0}, {"top_k": 2}, {"t": 0.7, "top_p": 0.6}, {"min_p": 0.3, "top_k": 3}]
)
def test_drawing_from_the_cooled_law_is_drawing_coolly(how: dict[str, float]) -> None:
    joint = exact.Joint(np.random.default_rng(5).dirichlet(np.full(64, 0.5)).reshape((4, 4, 4)))
    fixed = Whole() + LeftToRight() + Top(1)
    cooled = exact.law(fixed + Temperature(1.0) + Cooling(**how), joint)
    drawn = exact.law(fixed + Temperature(**how), joint)
    assert cooled.outcomes == pytest.approx(drawn.outcomes, abs=1e-9)
    assert cooled.kl_bound == np.inf


def test_a_threshold_is_asked_of_the_cooled_law() -> None:
    joint = exact.Joint(np.array([[0.36, 0.24], [0.24, 0.16]]))  # independent, the best has probability 0.6
    law = {t: exact.law(parse(f"whole+confidence+above-confidence(0.8)+cooling({t})"), joint) for t in (1, 0.25)}
    assert (law[1].expected_nfe, law[0.25].expected_nfe) == (2, 1)


@pytest.mark.parametrize("text", [*DECODING.values(), "dream-coder", "diffucoder"])
def test_what_checkpoints_are_published_with_can_be_read(text: str) -> None:
    assert parse(text).parts
