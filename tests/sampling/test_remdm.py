"""ReMDM: its clock against the paper's formulas, its law against plain recursion, its runs against their promises."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from brute import Brute, Row, filled, top, whole
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.exact import law
from mdsample.exact.joint import Joint
from mdsample.jobs.lines import finite
from mdsample.policy.base import Part
from mdsample.policy.remdm import HELD, KINDS, OFF, ON, clock
from mdsample.policy.revise import RemdmRemask
from mdsample.policy.selection import RemdmReveal
from mdsample.sampling.sampler import Sampler
from mdsample.testing import promises

ticks = st.integers(1, 60).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps - 1)))


@given(st.sampled_from([k for k in KINDS if k != "conf"]), st.none() | st.floats(0, 1), ticks)
def test_the_clock_is_the_papers(kind: str, eta: float | None, at: tuple[int, int]) -> None:
    steps, step = at
    tick = clock(kind, eta, steps, step)
    before, after, sigma = tick.before, tick.after, tick.sigma
    assert 0 <= before <= after <= 1
    assert 0 <= sigma <= min(1.0, (1 - after) / before if before else 1.0) + 1e-12
    stay = (1 - after - sigma * before) / (1 - before)
    assert tick.reveal == pytest.approx(1 - stay, abs=1e-9)
    # what is masked after the step: blanks that stay, and tokens that are masked again
    assert (1 - before) * (1 - tick.reveal) + before * sigma == pytest.approx(1 - after, abs=1e-9)
    if kind != "loop":
        assert (before, after) == (pytest.approx(step / steps), pytest.approx((step + 1) / steps))


def test_published_settings_and_the_ends() -> None:
    assert clock("cap", None, 1024, 500).sigma == 0.008
    assert clock("rescale", None, 1024, 500).sigma == pytest.approx(0.015)
    assert clock("rescale", None, 1024, 768).sigma == pytest.approx(0.015 * (255 / 768))
    assert clock("conf", None, 4, 2).sigma == pytest.approx(0.5)
    assert clock("conf", None, 4, 2).reveal == pytest.approx(0.5)
    held = [clock("loop", None, 100, step) for step in range(100)]
    still = [tick for tick in held if tick.before == tick.after]
    assert all(tick.before == HELD and tick.sigma == 0.02 for tick in still)
    assert len(still) == round(100 * (ON - OFF))
    assert all(0 <= tick.before <= tick.after <= 1 for tick in held)
    assert all(tick.sigma == 0 for tick in held if tick.before != tick.after and tick.before != HELD)
    assert held[-1].after == pytest.approx(1)
    for kind in KINDS:
        assert clock(kind, 0.5, 7, 0).before == 0
        assert clock(kind, 0.5, 7, 6).reveal == pytest.approx(1)
        assert (clock(kind, 0.5, 7, 7).reveal, clock(kind, 0.5, 7, 7).sigma) == (1, 0)
    # without coins it is ancestral sampling
    for step in range(9):
        assert clock("cap", 0.0, 9, step).reveal == pytest.approx(1 / (9 - step))


def brute_law(brute: Brute, kind: str, eta: float, steps: int, budget: int) -> dict[Row, float]:
    """Plain recursion: blanks chosen in every way, tokens drawn from conditionals, coins thrown one by one."""
    out: dict[Row, float] = defaultdict(float)

    def go(row: Row, probability: tuple[float, ...], step: int, spent: int, weight: float) -> None:
        blanks = whole(row)
        if not blanks:
            out[row] += weight
            return
        tick, n = clock(kind, eta, steps, step), len(blanks)
        places = brute.places(row)
        there = [i for i in range(len(row)) if row[i] is not None]
        sigma = dict.fromkeys(there, tick.sigma)
        if kind == "conf" and there:
            total = sum(math.exp(-probability[i]) for i in there)
            sigma = {i: tick.sigma * math.exp(-probability[i]) / total for i in there}
        for count in range(n + 1):
            chance = math.comb(n, count) * tick.reveal**count * (1 - tick.reveal) ** (n - count)
            sets = list(itertools.combinations(blanks, max(1, count)))
            for chosen in sets if chance else []:
                for tokens in itertools.product(range(brute.size), repeat=len(chosen)):
                    drawn = math.prod(places[i].p[t] for i, t in zip(chosen, tokens, strict=True))
                    for coins in itertools.product([False, True], repeat=len(there)) if drawn else []:
                        share = math.prod(sigma[i] if c else 1 - sigma[i] for i, c in zip(there, coins, strict=True))
                        again = [i for i, c in zip(there, coins, strict=True) if c][: budget - spent]
                        after = list(filled(row, [places[i] for i in chosen], tokens))
                        kept = list(probability)
                        for i, t in zip(chosen, tokens, strict=True):
                            kept[i] = float(np.float32(places[i].p[t]))
                        for i in again:
                            after[i] = None
                        if share:
                            go(
                                tuple(after),
                                tuple(kept),
                                step + 1,
                                spent + len(again),
                                weight * chance / len(sets) * drawn * share,
                            )

    go((None,) * len(next(iter(brute.joint))), (0.0,) * 9, 0, 0, 1.0)
    return out


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 999), steps=st.integers(2, 4), budget=st.integers(1, 3))
def test_the_law_is_followed_exactly(kind: str, seed: int, steps: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.ones(8)).reshape(2, 2, 2)
    toy = Joint(table)
    policy = mdsample.Whole() + mdsample.Random() + RemdmReveal(kind, eta=0.4, steps=steps) + mdsample.Temperature(1.0)
    found = law(policy + RemdmRemask(kind, eta=0.4, steps=steps, limit=budget), toy)
    joint = {x: float(table[x]) for x in itertools.product(range(2), repeat=3)}
    expected = brute_law(Brute(joint, 2, whole, lambda place: 0.0, top(1)), kind, 0.4, steps, budget)
    assert set(found.outcomes) == {x for x, p in expected.items() if p}
    for row, p in found.outcomes.items():
        assert p == pytest.approx(expected[row], abs=1e-9)
    assert sum(found.outcomes.values()) == pytest.approx(1)
    assert math.isinf(found.kl_bound)


def test_runs_follow_the_law_and_say_that_no_bound_holds() -> None:
    toy = Joint(np.random.default_rng(1).dirichlet(np.ones(8)).reshape(2, 2, 2))
    policy = mdsample.remdm("cap", eta=0.5, steps=4)
    canvas = toy.canvas(4000)
    result = promises.run(policy, toy, canvas, 3)
    counts = defaultdict[tuple[int, ...], int](int)
    rewritten = 0
    for i, row in enumerate(result.rows):
        counts[tuple(row.tokens.tolist())] += 1
        again = result.state.remasked[i] > 0
        rewritten += bool(again)
        assert math.isinf(row.error_bound) == again
        assert math.isinf(row.tv_bound) == again
        assert finite(row.error_bound) == (None if again else row.error_bound)
        assert len(row.commits) == 3 + result.state.remasked[i]
    assert rewritten > 400
    expected = law(policy, toy).outcomes
    assert sum(abs(counts[row] / 4000 - p) for row, p in expected.items()) / 2 < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RemdmRemask("caps"), "must be one of cap, rescale, conf, loop; got 'caps'"),
        (lambda: RemdmReveal("cap", eta=1.5), "at most 1"),
        (lambda: RemdmReveal("cap", steps=0), "at least 1"),
        (lambda: RemdmRemask("cap", limit=0), "at least 1"),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_preset_as_text() -> None:
    text = "remdm('loop',eta=0.05,steps=32)"
    assert mdsample.parse(text) == mdsample.remdm("loop", eta=0.05, steps=32)
    parts: list[Part] = list(mdsample.parse(text).parts)
    assert [part.name for part in parts] == ["whole", "random", "remdm-reveal", "temperature", "remdm-remask"]
    assert mdsample.parse(str(mdsample.parse(text))) == mdsample.parse(text)
    assert Sampler(mdsample.parse(text))
