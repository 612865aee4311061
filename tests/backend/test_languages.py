"""Slots that hold a language, on Torch and MLX against the reference, and against all texts at once."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from installed import on
from languages import accepts

from mdsample.backend.folds import NARROW, WIDTH, plan
from mdsample.backend.reference.prediction import NumpyPrediction, reduce
from mdsample.backend.reference.sums import class_sums
from mdsample.backend.sums import statistics
from mdsample.core.language import Automaton, Span, turns
from mdsample.core.restriction import Restriction
from mdsample.errors import ModelError
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
                if rng.random() < 0.3:  # what is written is wanted, too
                    text = text_of(rng, of, 3)
                    tokens = np.where(rng.random(3) < 0.4, text, tokens).astype(np.int32)
                spans.append(Span(row, np.arange(first, first + 3, dtype=np.int32), tokens, of))
    kind = draw(st.sampled_from(["usual", "sharp", "certain", "ties"]))
    scores = rng.normal(size=(int(wanted.sum()), size)) * {"usual": 2, "sharp": 60, "certain": 1, "ties": 1}[kind]
    if kind == "certain":  # one token has all but 1e-6, or all but e^-10000
        gap = draw(st.sampled_from([math.log(1e6 * size), 1e4]))
        scores[np.arange(len(scores)), rng.integers(0, size, len(scores))] += gap
    if kind == "ties":
        scores = np.round(scores)
    sets = np.ones((2, size), np.bool_)
    sets[1] = rng.random(size) < 0.9
    guide = draw(st.sampled_from([NoGuide(), NoGuide(), Cooling(0.7), Cooling(1.3, top_k=3)]))
    index = (rng.random(wanted.shape) < draw(st.sampled_from([0.0, 0.3]))).astype(np.int32)
    restriction = Restriction(sets, index, tuple(spans))
    return scores.astype(np.float32), wanted, restriction, guide


def text_of(rng: Any, language: Automaton, length: int) -> Any:
    """A random text of a language, `[length]`; its tokens are random ones of their classes."""
    texts = [
        word
        for word in itertools.product(range(1, language.symbols), repeat=length)
        if accepts(language, [int(language.members[symbol][0]) for symbol in word])
    ]
    word = texts[int(rng.integers(len(texts)))]
    return np.array([rng.choice(language.members[symbol]) for symbol in word], np.int32)


def near(ours: Any, theirs: Any, scores: Any) -> None:
    """Float32 keeps seven digits of a score; the logarithm of a tempered law ends where float64 does."""
    slack = 3e-6 * float(np.abs(scores).max())
    np.testing.assert_allclose(np.maximum(ours, -700), np.maximum(theirs, -700), rtol=2e-5, atol=5e-6 + slack)


@looks
@settings(max_examples=30, deadline=None)
@given(question=questions(), seed=st.integers(0, 99))
def test_what_is_said_of_a_language_equals_the_reference(look: Look, question: Any, seed: int) -> None:
    scores, wanted, restriction, guide = question
    try:
        expected = NumpyPrediction(scores.astype(np.float64), wanted, restriction, guide)
    except ModelError as error:  # the sets leave a language no text
        with pytest.raises(ModelError, match=re.escape(str(error))):
            look(scores, wanted, restriction, guide)
        return
    found = look(scores, wanted, restriction, guide)
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
    for span in spans:
        blank[span.row, span.positions] = span.tokens
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
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([40, BLOCK + 7, 3 * BLOCK]), st.sampled_from([1, 3, 30]), st.booleans())
def test_one_turn_says_of_each_class_what_its_tokens_say(
    look: Look, seed: int, size: int, symbols: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, symbols + 1, size).astype(np.int32)
    classes[classes == 2] = 1  # one class is large, and one is not there
    free = symbols_of(classes)
    scores = rng.normal(size=(3, size)).astype(np.float32) * 4
    scores = np.round(scores) if ties else scores
    scores[2, rng.random(size) < 0.3] = -np.inf
    scores[:, rng.integers(size)] += 1e4
    restriction = Restriction(
        rng.random((1, size)) < 0.8,
        np.zeros((1, 4), np.int32),
        (Span(0, *(np.array(x, np.int32) for x in ([0, 2, 3], [-1, -1, -1])), free),),
    )
    whole = np.concatenate([scores[:1], rng.normal(size=(1, size)).astype(np.float32), scores[1:]])
    expected = class_sums(np.where(restriction.sets, scores.astype(np.float64), -np.inf), free)
    if not np.isfinite(expected.top.max(1)).all():
        return
    found = look(whole, np.ones((1, 4), np.bool_), restriction, NoGuide())._languages.sums[0]
    there = expected.top > -np.inf
    np.testing.assert_array_equal(found.token[there], expected.token[there])
    np.testing.assert_array_equal(found.top, expected.top)
    for name in ("second", "rest", "mean"):
        np.testing.assert_allclose(getattr(found, name)[there], getattr(expected, name)[there], rtol=1e-5, err_msg=name)


@looks
@pytest.mark.parametrize("before", [True, False])
def test_a_class_of_which_nothing_may_stand_takes_nothing_from_another(look: Look, before: bool) -> None:
    # the other one has two whole blocks, with the best token in the further one
    classes = np.array([1, *[2] * 64] if before else [*[1] * 64, 2], np.int32)
    scores = np.random.default_rng(2).normal(size=(1, 65)).astype(np.float32)
    scores[0, [5, 64] if before else [40, 31]] = 5, 4
    allowed = np.ones(65, np.bool_)
    allowed[0 if before else 64] = False
    span = Span(0, np.array([0], np.int32), np.array([-1], np.int32), symbols_of(classes))
    restriction = Restriction(allowed[None], np.zeros((1, 1), np.int32), (span,))
    seen = look(scores, np.ones((1, 1), np.bool_), restriction, NoGuide()).marginals
    zero = np.zeros(1, np.int32)
    expected = reduce(scores[:, allowed].astype(np.float64), zero, zero)
    np.testing.assert_allclose(seen.log_probability[0], expected.top, rtol=1e-5)
    np.testing.assert_allclose(seen.entropy[0], expected.entropy, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 40), st.booleans())
def test_the_statistics_of_a_place_follow_from_its_sums(seed: int, size: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 5, size).astype(np.int32)
    classes[0] = 1
    scores, weight = rng.normal(size=(3, size)) * 3, rng.normal(size=(3, int(classes.max()) + 1))
    if ties:
        scores, weight = np.round(scores), np.round(weight)
    weight[:, 2:][rng.random(weight[:, 2:].shape) < 0.3] = -np.inf
    weight[:, 0] = -np.inf
    sums = class_sums(scores, symbols_of(classes))
    assert np.isneginf(sums.masses[:, 0]).all()
    found = statistics(sums, weight)
    zero = np.zeros(3, np.int32)
    expected = reduce(scores + weight[:, classes], zero, zero)
    assert found.token.tolist() == expected.token.tolist()
    for ours, theirs in (
        (found.log_probability, expected.top),
        (found.second, expected.second),
        (found.entropy, expected.entropy),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def symbols_of(classes: Any) -> Automaton:
    """Any row of tokens that are not of class 0."""
    symbol = np.unique(classes[classes > 0]).astype(np.int32)
    return Automaton(classes, np.zeros_like(symbol), symbol, np.zeros_like(symbol), np.ones(1, np.bool_))


@looks
@pytest.mark.parametrize("inside", [True, False])
def test_what_is_nearly_certain_is_not_rounded_away(look: Look, inside: bool) -> None:
    """All but 1e-12 is one token's; the rest is another token's, of the same class or of another."""
    free = symbols_of(np.array([0, 1, 1 if inside else 2, 2], np.int32))
    span = Span(0, np.array([0], np.int32), np.array([-1], np.int32), free)
    restriction = Restriction(np.ones((1, 4), np.bool_), np.zeros((1, 1), np.int32), (span,))
    rest = math.log(1e-12)
    seen = look(np.array([[50, 0, rest, -80]], np.float32), np.ones((1, 1), np.bool_), restriction, NoGuide()).marginals
    np.testing.assert_allclose(seen.log_probability[0, 0], -1e-12, rtol=1e-4)
    np.testing.assert_allclose(seen.entropy[0, 0], 1e-12 * (1 - rest), rtol=1e-4)
    np.testing.assert_allclose(seen.second[0, 0], rest, rtol=1e-5)
    assert seen.token[0, 0] == 1


@pytest.mark.parametrize("look", [NumpyPrediction, on("torch", torch_look), on("mlx", mlx_look)])
@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_a_damaged_score_is_refused_even_of_a_token_that_the_language_forbids(look: Look, damage: float) -> None:
    free = symbols_of(np.array([0, 1, 1, 2], np.int32))
    span = Span(0, np.array([0, 1], np.int32), np.full(2, -1, np.int32), free)
    restriction = Restriction(np.ones((1, 4), np.bool_), np.zeros((1, 3), np.int32), (span,))
    scores = np.zeros((3, 4), np.float32)
    scores[1, 0] = damage
    with np.errstate(invalid="ignore"), pytest.raises(ModelError, match="row 0, position 1 no usable scores"):
        look(scores, np.ones((1, 3), np.bool_), restriction, NoGuide())


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
    for rows in (1, 5, 18):
        monkeypatch.setattr(sys.modules[type(whole).__module__], "CHUNK_BYTES", rows * 4 * 2 * BLOCK)
        parts = look(scores, wanted, restriction, NoGuide())
        assert (parts._kept is None) == (rows < 18)
        np.testing.assert_allclose(parts.marginals.entropy, whole.marginals.entropy, rtol=1e-6)
        for how in (Greedy(), Temperature(), Temperature(0.5, top_k=4)):
            for ours, theirs in zip(parts.draw(*at, uniforms, how), whole.draw(*at, uniforms, how), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@looks
def test_a_step_asks_the_device_twice(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for statistics and sums; once more for draws, unless the best tokens are drawn, which the sums have."""
    import sys

    rng = np.random.default_rng(5)
    some = [random_language(rng, 600, 6) for _ in range(2)]
    spans = tuple(
        Span(0, np.arange(6 * k, 6 * k + 6, dtype=np.int32), np.full(6, -1, np.int32), of) for k, of in enumerate(some)
    )
    restriction = Restriction(np.ones((1, 600), np.bool_), np.zeros((1, 18), np.int32), spans)
    scores, wanted = rng.normal(size=(18, 600)).astype(np.float32), np.ones((1, 18), np.bool_)
    at = np.zeros(12, np.int32), rng.permutation(12).astype(np.int32)
    module = sys.modules[type(look(scores, wanted, restriction, NoGuide())).__module__]
    fetch, asked = module._fetch, [0]

    def counted(*parts: Any) -> Any:
        asked[0] += 1
        return fetch(*parts)

    monkeypatch.setattr(module, "_fetch", counted)
    for how, count in ((Greedy(), 1), (Temperature(), 2), (Temperature(0.5), 3)):
        asked[0] = 0
        prediction = look(scores, wanted, restriction, NoGuide())
        assert asked[0] == 1
        prediction.draw(*at, rng.random(12), how)
        assert asked[0] == count


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_folds_leave_what_the_classes_hold(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    none = np.zeros(0, np.int32)
    steps = plan(Automaton(classes, none, none, none, np.ones(1, np.bool_)))
    values = rng.random(len(classes))
    column = values
    for width, fold in zip(itertools.chain([WIDTH], itertools.repeat(NARROW)), steps.folds, strict=False):
        column = column[fold.take] if len(column) else np.zeros(len(fold.take))
        column[fold.empty] = 0
        column = column.reshape(-1, width).sum(1)
    expected = np.bincount(classes, values, len(sizes))
    np.testing.assert_allclose(column, expected[steps.present])
    assert 0 not in steps.present and set(steps.present) == set(np.flatnonzero(sizes)) - {0}
