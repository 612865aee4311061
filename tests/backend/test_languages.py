"""Slots that hold a language, on Torch and MLX against the reference, and against all texts at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from installed import on

from mdsample.backend.folds import plan
from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.language import Automaton, Span, turns
from mdsample.core.restriction import Restriction
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Cooling, Guide, NoGuide
from mdsample.testing.languages import random_language

BLOCK = 512
Look = Callable[..., Any]


def torch_look(scores: Any, wanted: Any, restriction: Restriction, guide: Guide) -> Any:
    import torch
    from mdsample_torch.prediction import TorchPrediction

    table = torch.from_numpy(scores)
    size = table.shape[1]

    def logits(places: Any, out: Any) -> None:
        out[:, :size] = table[places]
        out[:, size:] = 1e9  # what lies beyond the vocabulary is never seen

    width = -(-size // BLOCK) * BLOCK
    return TorchPrediction(logits, size, width, wanted, restriction, guide, torch.device("cpu"))


def mlx_look(scores: Any, wanted: Any, restriction: Restriction, guide: Guide) -> Any:
    import mlx.core as mx
    from mdsample_mlx.prediction import MlxPrediction

    padded = mx.array(np.pad(scores, ((0, 0), (0, -scores.shape[1] % BLOCK)), constant_values=1e9))
    return MlxPrediction(lambda places: padded[places], padded.shape[1], wanted, restriction, guide, mx.Device(mx.cpu))


looks = pytest.mark.parametrize("look", [on("torch", torch_look), on("mlx", mlx_look)])


@st.composite
def questions(draw: st.DrawFn) -> tuple[Any, Any, Restriction, Guide]:
    """Two rows with up to three slots, some with a language and two perhaps with the same; some tokens written."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    size = draw(st.sampled_from([9, 40, BLOCK + 7]))
    wanted = np.ones((2, 9), np.bool_)
    wanted[1, 7:] = False
    some = [random_language(rng, size, 3) for _ in range(2)]
    spans: list[Span] = []
    for row in range(2):
        for first in (0, 3):
            if rng.random() < 0.7:
                of, tokens = some[int(rng.integers(2))], np.full(3, -1, np.int32)
                spans.append(Span(row, np.arange(first, first + 3, dtype=np.int32), tokens, of))
    kind = draw(st.sampled_from(["usual", "sharp", "certain", "ties"]))
    scores = rng.normal(size=(int(wanted.sum()), size)) * {"usual": 2, "sharp": 60, "certain": 1, "ties": 1}[kind]
    if kind == "certain":  # one token has all but 1e-6, or all but e^-10000
        gap = draw(st.sampled_from([math.log(1e6 * size), 1e4]))
        scores[np.arange(len(scores)), rng.integers(0, size, len(scores))] += gap
    if kind == "ties":
        scores = np.round(scores)
    sets = np.ones((1, size), np.bool_)
    guide = draw(st.sampled_from([NoGuide(), NoGuide(), Cooling(0.7), Cooling(1.3, top_k=3)]))
    restriction = Restriction(sets, np.zeros(wanted.shape, np.int32), tuple(spans))
    return scores.astype(np.float32), wanted, restriction, guide


def near(ours: Any, theirs: Any, scores: Any) -> None:
    """Float32 keeps seven digits of a score; the logarithm of a tempered law ends where float64 does."""
    slack = 3e-6 * float(np.abs(scores).max())
    np.testing.assert_allclose(np.maximum(ours, -700), np.maximum(theirs, -700), rtol=2e-5, atol=5e-6 + slack)


@looks
@settings(max_examples=30, deadline=None)
@given(question=questions(), seed=st.integers(0, 99))
def test_what_is_said_of_a_language_equals_the_reference(look: Look, question: Any, seed: int) -> None:
    scores, wanted, restriction, guide = question
    found = look(scores, wanted, restriction, guide)
    expected = NumpyPrediction(scores.astype(np.float64), wanted, restriction, guide)
    for name in ("log_probability", "second", "entropy"):
        near(getattr(found.marginals, name), getattr(expected.marginals, name), scores)
    rng = np.random.default_rng(seed)
    rows, positions = (index.astype(np.int32) for index in np.nonzero(wanted))
    tokens = rng.integers(0, scores.shape[1], len(rows)).astype(np.int32)
    near(found.log_probabilities(rows, positions, tokens), expected.log_probabilities(rows, positions, tokens), scores)
    free = Restriction(restriction.sets, restriction.index)
    moved = (scores + rng.normal(size=scores.shape)).astype(np.float32)
    ours = found.divergence(rows, positions, look(moved, wanted, free, NoGuide()), rows)
    theirs = expected.divergence(rows, positions, NumpyPrediction(moved, wanted, free, NoGuide()), rows)
    # a score's rounding moves a probability by as much, and a divergence weighs differences of scores by probabilities
    scale = float(np.abs(scores).max())
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 + 2e-6 * scale + 1e-7 * scale**2)
    order = rng.permutation(len(rows))
    uniforms = rng.random(len(rows))
    for how in (Greedy(), Temperature(), Temperature(0.6), Temperature(1.4, top_k=2)):
        _drawn(found, expected, restriction.spans, rows[order], positions[order], uniforms, how, 3e-6 * scale)


def _drawn(
    found: Any, expected: NumpyPrediction, spans: Any, rows: Any, positions: Any, uniforms: Any, how: Any, slack: float
) -> int:
    """Each uniform lies in its token's interval of the law given all that was drawn before it in its slot; how many.

    Where equals are cut off, float32 and float64 may keep other ones, and nothing is said.
    """
    token, probability = found.draw(rows, positions, uniforms, how)
    turn, slack = turns(spans, rows, positions), 1e-4 + slack
    inside = {(span.row, place): span for span in spans for place in span.positions.tolist()}
    blank = np.full((2, 9), -1, np.int32)
    written, told = blank.copy(), 0
    cut = max(how.top_k if isinstance(how, Temperature) else 0, expected.law.top_k if expected.law else 0)
    for n, place in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
        at, before = (rows[[n]], positions[[n]]), written if turn[n] >= 0 else blank
        own, law = (expected.probabilities(*at, kind, before)[0] for kind in (Temperature(), how))
        written[place] = token[n]
        ranked = np.sort(own)[::-1]
        if cut and (own[token[n]] == 0 or ranked[cut - 1] * (1 - 10 * slack) <= ranked[cut : cut + 1].max(initial=-1)):
            continue
        told += 1
        np.testing.assert_allclose(probability[n], own[token[n]], rtol=100 * slack, atol=slack)
        if isinstance(how, Greedy):
            assert own[token[n]] >= own.max() * (1 - 10 * slack)
            continue
        # several places of a slot are drawn class by class, unless what is cut off depends on every score
        by_class = turn[n] >= 0 and not cut and expected.law is None
        group = inside[place].language.classes if by_class else np.zeros(len(law))
        order = np.lexsort((np.arange(len(law)), group))
        upper = np.cumsum(law[order])[order.tolist().index(token[n])]
        assert upper - law[token[n]] - 10 * slack <= uniforms[n] <= upper + 10 * slack
    return told


def test_a_wrong_joint_draw_is_seen() -> None:
    """Places of a slot that are drawn as if the others were not, and a class whose weight is lost."""
    rng = np.random.default_rng(0)
    seen = {"apart": 0, "unweighed": 0}
    for _ in range(20):
        language = random_language(rng, 9, 3)
        span, wanted = Span(0, np.arange(3, dtype=np.int32), np.full(3, -1, np.int32), language), np.ones((1, 3), bool)
        scores, everything = rng.normal(size=(3, 9)) * 2, (np.ones((1, 9), bool), np.zeros((1, 3), np.int32))
        rows, positions, uniforms = np.zeros(3, np.int32), np.arange(3, dtype=np.int32), rng.random(3)
        right = NumpyPrediction(scores, wanted, Restriction(*everything, (span,)), NoGuide())
        plain = NumpyPrediction(
            scores, wanted, Restriction(*everything, (attrs.evolve(span, weighed=False),)), NoGuide()
        )

        class Apart:
            @staticmethod
            def draw(*asked: Any) -> Any:
                *places, how = asked
                some = [right.draw(*(column[[n]] for column in places), how) for n in range(3)]  # noqa: B023
                return tuple(map(np.concatenate, zip(*some, strict=True)))

        assert _drawn(right, right, (span,), rows, positions, uniforms, Temperature(), 0.0) == 3
        for wrong, found in (("apart", Apart), ("unweighed", plain)):
            try:
                _drawn(found, right, (span,), rows, positions, uniforms, Temperature(), 0.0)
            except AssertionError:
                seen[wrong] += 1
    assert min(seen.values()) >= 10, seen


@looks
@pytest.mark.parametrize("gap", [0.0, 30.0, 1e4])
def test_a_class_that_the_language_forces_is_found_however_unlikely_it_is(look: Look, gap: float) -> None:
    classes = np.array([0, 1, 1, 2, 2], np.int32)
    forced = Automaton(
        classes, *(np.array(x, np.int32) for x in ([0, 1], [1, 2], [1, 2])), np.array([False, False, True])
    )
    span = Span(0, np.arange(2, dtype=np.int32), np.full(2, -1, np.int32), forced)
    restriction = Restriction(np.ones((1, 5), np.bool_), np.zeros((1, 2), np.int32), (span,))
    scores = np.array([[gap, 0, -1, gap, 0], [gap, gap, 0, -1, -3]], np.float32)
    found = look(scores, np.ones((1, 2), np.bool_), restriction, NoGuide())
    assert found.marginals.token.tolist() == [[1, 3]]
    expected = np.log(1 / (1 + np.exp([-1, -2])))
    np.testing.assert_allclose(found.marginals.log_probability[0], expected, rtol=1e-5)
    rows, positions = np.zeros(2, np.int32), np.arange(2, dtype=np.int32)
    for how in (Temperature(), Temperature(0.5), Greedy()):
        token, probability = found.draw(rows, positions, np.full(2, 0.2), how)
        assert token.tolist() == [1, 3]
        np.testing.assert_allclose(probability, np.exp(expected), rtol=1e-5)


@looks
def test_many_chunks_say_what_one_says(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    rng = np.random.default_rng(5)
    of = random_language(rng, 600, 6)
    spans = tuple(Span(0, np.arange(6 * k, 6 * k + 6, dtype=np.int32), np.full(6, -1, np.int32), of) for k in (0, 2))
    restriction = Restriction(np.ones((1, 600), np.bool_), np.zeros((1, 18), np.int32), spans)
    scores, wanted = rng.normal(size=(18, 600)).astype(np.float32), np.ones((1, 18), np.bool_)
    whole = look(scores, wanted, restriction, NoGuide())
    at = np.zeros(18, np.int32), rng.permutation(18).astype(np.int32)
    uniforms = rng.random(18)
    for rows in (1, 5):
        monkeypatch.setattr(sys.modules[type(whole).__module__], "CHUNK_BYTES", rows * 4 * 2 * BLOCK)
        parts = look(scores, wanted, restriction, NoGuide())
        assert (parts._kept is None) == (rows == 1)
        np.testing.assert_allclose(parts.marginals.entropy, whole.marginals.entropy, rtol=1e-6)
        for how in (Greedy(), Temperature(), Temperature(0.5, top_k=4)):
            for ours, theirs in zip(parts.draw(*at, uniforms, how), whole.draw(*at, uniforms, how), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_folds_leave_what_the_classes_hold(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    none = np.zeros(0, np.int32)
    steps = plan(Automaton(classes, none, none, none, np.ones(1, np.bool_)))
    values = rng.random(len(classes))
    column = values
    for fold in steps.folds:
        column = column[fold.take] if len(column) else np.zeros(len(fold.take))
        column[fold.empty] = 0
        column = column.reshape(-1, 32).sum(1)
    expected = np.bincount(classes, values, len(sizes))
    np.testing.assert_allclose(column, expected[steps.present])
    assert 0 not in steps.present and set(steps.present) == set(np.flatnonzero(sizes)) - {0}
