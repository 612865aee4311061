"""Slots that hold a language: the law against a loop of its own, draws against the law, and never a dead end."""

from __future__ import annotations

import itertools
import math
import re

import brute  # noqa: F401  (its folder is on the path)
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mdsample
from mdsample import Choices, Greedy, LeftToRight, Policy, Regex, RightToLeft, Sampler, Temperature, Top, Whole, exact
from mdsample.constraints.program import possible, weights
from mdsample.constraints.sums import LOGARITHMS, NUMBERS, sums
from mdsample.core.arrays import Doubles
from mdsample.core.language import Automaton, Span, turns
from mdsample.errors import PolicyError
from mdsample.policy.complete import complete
from mdsample.sampling.result import bounded
from mdsample.testing import policies
from mdsample.testing.languages import random_language

CALM = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
#: expressions over the tokens 0, 1, 2 of toys
EXPRESSIONS = ["(01|10|22)+", "0*1*", "[02]*1[02]*", "(0[012])*2?", "1?(00|22)*[01]?", "(012|120|201).?", "0?1?2?.*"]


def table_of(seed: int, length: int) -> Doubles:
    """A joint of three tokens at `length` positions; nothing in it is impossible."""
    draw = np.random.default_rng(seed)
    table = draw.dirichlet(np.full(3**length, draw.choice([0.1, 1.0]))) + 1e-4
    return (table / table.sum()).reshape((3,) * length)


def texts_of(expression: str, length: int) -> list[tuple[int, ...]]:
    return [
        row for row in itertools.product(range(3), repeat=length) if re.fullmatch(expression, "".join(map(str, row)))
    ]


def told(
    table: Doubles, texts: list[tuple[int, ...]], order: list[int], count: int, heat: float
) -> dict[tuple[int, ...], float]:
    """The law of texts when `count` places a step are drawn in `order`, each at `heat`, worked out by listing."""
    length = table.ndim

    def marginal(written: dict[int, int]) -> list[Doubles]:
        kept = table[tuple(written.get(i, slice(None)) for i in range(length))]
        open_ = [i for i in range(length) if i not in written]
        out = [np.eye(3)[written[i]] if i in written else np.zeros(3) for i in range(length)]
        for axis, i in enumerate(open_):
            out[i] = kept.sum(tuple(a for a in range(len(open_)) if a != axis)) / kept.sum()
        return out

    law: dict[tuple[int, ...], float] = {}

    def go(written: dict[int, int], share: float) -> None:
        # what alone is left to stand somewhere is written without a pass
        agreeing = [text for text in texts if all(text[i] == token for i, token in written.items())]
        written = {i: agreeing[0][i] for i in range(length) if len({text[i] for text in agreeing}) == 1}
        left = [i for i in order if i not in written]
        if not left:
            row = tuple(written[i] for i in range(length))
            law[row] = law.get(row, 0) + share
            return
        p = marginal(written)

        def places(drawn: dict[int, int], these: list[int], share: float) -> None:
            if not these:
                go({**written, **drawn}, share)
                return
            fixed = {**written, **drawn}
            mass = np.zeros(3)
            for text in texts:
                if all(text[i] == token for i, token in fixed.items()):
                    mass[text[these[0]]] += np.prod([p[i][text[i]] for i in range(length) if i not in fixed])
            mass /= mass.sum()
            mass = np.eye(3)[mass.argmax()] if heat == 0 else mass ** (1 / heat) / (mass ** (1 / heat)).sum()
            for token in np.flatnonzero(mass):
                places({**drawn, these[0]: int(token)}, these[1:], share * mass[token])

        places({}, left[:count], share)

    go({}, 1.0)
    return law


@CALM
@given(
    st.integers(0, 10**6),
    st.sampled_from(EXPRESSIONS),
    st.integers(2, 4),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.0, 0.6, 1.0, 2.0]),
)
def test_the_law_is_the_product_of_each_steps_marginals_given_the_language(
    seed: int, expression: str, length: int, count: int, backwards: bool, heat: float
) -> None:
    table = table_of(seed, length)
    texts = texts_of(expression, length)
    policy = Whole() + (RightToLeft() if backwards else LeftToRight()) + Top(count) + Regex(expression, slot="text")
    policy = policy + (Temperature(heat) if heat else Greedy())
    toy = exact.Joint(table)
    if not texts:
        with pytest.raises(PolicyError, match="language"):
            exact.law(policy, toy)
        return
    order = list(range(length))[::-1] if backwards else list(range(length))
    expected = told(table, texts, order, count, heat)
    law = exact.law(policy, toy)
    found = {tuple(row): float(p) for row, p in zip(law.tokens.tolist(), law.probability.tolist(), strict=True)}
    assert sum(abs(found.get(row, 0) - expected.get(row, 0)) for row in {*found, *expected}) / 2 < 1e-9


#: seed of a joint that is far from uniform
PEAKED = 1
#: the false alarm that each comparison of draws with a law is allowed
ALARM = 1e-6


def beyond(x: float, freedom: int) -> float:
    """The probability that chi-square with so many degrees of freedom is above x."""
    half, odd = x / 2, freedom % 2
    terms = (half ** (n + odd / 2) / math.gamma(n + 1 + odd / 2) for n in range(freedom // 2))
    return math.exp(-half) * sum(terms) + (math.erfc(math.sqrt(half)) if odd else 0.0)


def unlike(found: np.ndarray, law: np.ndarray) -> bool:
    """Whether counts `[k]` are not from a law, by Pearson's test; rare texts count as one."""
    expected = law * found.sum()
    order = np.argsort(expected)
    rare = order[: int(np.searchsorted(np.cumsum(expected[order]), 5)) + 1]
    kept = np.setdiff1d(order, rare)
    counts, wanted = (np.array([*column[kept], column[rare].sum()]) for column in (found, expected))
    return beyond(float(((counts - wanted) ** 2 / wanted).sum()), len(kept)) < ALARM


def counted(policy: Policy, toy: exact.Joint, texts: list[tuple[int, ...]], rows: int) -> np.ndarray:
    """How often each text is drawn; one outside of them is a KeyError."""
    found = dict.fromkeys(texts, 0)
    for row in Sampler(policy, seed=1).run(toy, toy.canvas(rows)).state.tokens.tolist():
        found[tuple(row)] += 1
    return np.array(list(found.values()))


@pytest.mark.parametrize("how", [Temperature(), Temperature(0.6), Temperature(1.5, top_k=2), Temperature(min_p=0.2)])
@pytest.mark.parametrize("count", [1, 4])
def test_rows_are_drawn_from_that_law(how: Temperature, count: int) -> None:
    toy = exact.Joint(table_of(PEAKED, 4))
    policy = Whole() + mdsample.Entropy() + Top(count) + Regex("(0[012])*2?|1.*2", slot="text") + how
    law = exact.law(policy, toy)
    texts = [tuple(row) for row in law.tokens.tolist()]
    assert not unlike(counted(policy, toy, texts, 2000), law.probability)


def test_the_tail_of_chi_square_is_that_of_sums_of_squares() -> None:
    assert beyond(3.841458820694124, 1) == pytest.approx(0.05) and beyond(31.410432844230918, 20) == pytest.approx(0.05)
    assert beyond(7.814727903251179, 3) == pytest.approx(0.05) and beyond(0.0, 7) == 1


@pytest.mark.parametrize("wrong", ["each by itself", "not weighed"])
def test_a_wrong_joint_draw_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That test would see places drawn from their marginals, and classes that only count as possible."""
    toy = exact.Joint(table_of(PEAKED, 4))
    policy = Whole() + mdsample.Entropy() + Top(4) + Regex("(0[012])*2?|1.*2", slot="text") + Temperature()
    law = exact.law(policy, toy)
    texts = [tuple(row) for row in law.tokens.tolist()]
    if wrong == "not weighed":
        monkeypatch.setattr(Regex, "weighed", False)
    else:
        monkeypatch.setattr("mdsample.backend.host.turns", lambda _, rows, __: np.full(len(rows), -1, np.int32))
        texts = list(itertools.product(range(3), repeat=4))  # it leaves the language, too
    found = counted(policy, toy, texts, 1000)
    weight = dict(zip(map(tuple, law.tokens.tolist()), law.probability.tolist(), strict=True))
    expected = np.array([weight.get(text, 0.0) for text in texts])
    assert unlike(found[expected > 0], expected[expected > 0] / expected.sum())


@CALM
@given(st.data(), st.sampled_from(EXPRESSIONS))
def test_every_policy_ends_in_the_language(data: st.DataObject, expression: str) -> None:
    """However little the model wants it: what the language leaves has probability 1e-6 and less."""
    table = np.full((3,) * 4, 1e-9)
    table[1, 1, 2, 1] = 1.0
    toy = exact.Joint(table / table.sum())
    if not texts_of(expression, 4):
        return
    policy = data.draw(policies(["text"], vocab=3, blanks=4, end=False)).without("constraint")
    result = Sampler(policy + Regex(expression, slot="text"), seed=data.draw(st.integers(0, 99))).run(
        toy, toy.canvas(3)
    )
    for row in result.state.tokens.tolist():
        assert re.fullmatch(expression, "".join(map(str, row))), row


def test_a_language_of_one_text_costs_no_pass() -> None:
    toy = exact.Joint(table_of(1, 4))
    for part in (Regex("0122", slot="text"), Choices(("0122",), slot="text")):
        result = Sampler(Policy.of(Top(1), part)).run(toy, toy.canvas(2))
        assert result.state.nfe.tolist() == [0, 0], part
    with_one_choice = Sampler(Policy.of(Top(1), Regex("[01]122", slot="text"))).run(toy, toy.canvas(1))
    assert with_one_choice.state.nfe.tolist() == [1]


@CALM
@given(st.integers(0, 10**6), st.sampled_from([1.0, 30.0, 3000.0]))
def test_the_program_equals_listing(seed: int, spread: float) -> None:
    draw = np.random.default_rng(seed)
    language, mass, written = automaton(draw), draw.normal(size=(2, 3, 4)) * spread, np.full((2, 3), -1, np.int32)
    written[draw.random((2, 3)) < 0.3] = 1
    found = weights(language, written, mass)
    after = {
        (s, c): t
        for s, c, t in zip(*(x.tolist() for x in (language.source, language.symbol, language.target)), strict=True)
    }
    for row in range(2):
        expected = np.full((3, 4), -np.inf)
        for word in itertools.product(range(4), repeat=3):
            state: int | None = 0
            for symbol in word:
                state = None if state is None else after.get((state, symbol))
            if state is None or not language.accepting[state]:
                continue
            for i in range(3):
                others = [j for j in range(3) if j != i]
                if all(written[row, j] in (-1, word[j]) for j in others):
                    share = sum(mass[row, j, word[j]] for j in others if written[row, j] < 0)
                    expected[i, word[i]] = np.logaddexp(expected[i, word[i]], share)
        for ours, theirs in zip(found[row], expected, strict=True):
            assert np.isneginf(ours[np.isneginf(theirs)]).all()
            peak = theirs.max()
            if np.isfinite(peak):
                # a logarithm near 10,000 has an error of 1e-12 already
                near = theirs - peak > -200
                digits = 1e-12 * max(1.0, float(np.abs(mass).sum(1).max()))
                np.testing.assert_allclose((ours - ours.max())[near], (theirs - peak)[near], rtol=0, atol=digits)
                assert (ours - ours.max())[~near].max(initial=-np.inf) < -199
            else:
                assert np.isneginf(ours).all()


def automaton(draw: np.random.Generator) -> Automaton:
    """Four classes, up to five states; not every state leads on."""
    states = int(draw.integers(1, 6))
    pairs = np.flatnonzero(draw.random(states * 3) < 0.6)
    source, symbol = np.divmod(pairs, 3)
    target = draw.integers(0, states, len(pairs)).astype(np.int32)
    edges = source.astype(np.int32), (symbol + 1).astype(np.int32), target
    return Automaton(np.arange(4, dtype=np.int32), *edges, draw.random(states) < 0.5)


def test_what_is_left_says_so_by_itself() -> None:
    draw = np.random.default_rng(5)
    language = automaton(draw)
    everything = np.ones((1, 3, 4), np.bool_)
    assert not possible(language, np.full((1, 3), -1, np.int32), everything & False).any()


def test_a_place_alone_in_its_slot_is_drawn_alike_whatever_the_other_rows_draw() -> None:
    # several places of a slot are drawn by classes, one by its tokens: which it is must not be another row's matter
    language = Automaton(*(np.array(column, np.int32) for column in ([1, 1], [0], [1], [0])), np.ones(1, np.bool_))
    spans = [Span(row, np.arange(3, dtype=np.int32), np.full(3, -1, np.int32), language) for row in (0, 1)]
    rows, positions = np.array([0, 1, 1, 2], np.int32), np.array([0, 2, 0, 0], np.int32)
    assert turns(spans, rows, positions).tolist() == [-1, 0, 1, -1]


@CALM
@given(st.integers(0, 10**6), st.sampled_from([1.0, 30.0, 300.0]), st.integers(1, 30))
def test_weights_are_those_of_sums_of_logarithms(seed: int, spread: float, length: int) -> None:
    """Where the range of float64 does not hold them, too; so they are exact, whichever sums they come from."""
    draw = np.random.default_rng(seed)
    language = random_language(draw, 12, length, states=6, symbols=7)
    mass = draw.normal(size=(2, length, language.symbols)) * spread
    mass[..., 0] = -np.inf
    found = weights(language, np.full((2, length), -1, np.int32), mass).transpose(1, 0, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected, _ = sums(language, mass.transpose(1, 0, 2), LOGARITHMS)
    peaks = found.max(2, keepdims=True), expected.max(2, keepdims=True)
    near = expected - peaks[1] > -200
    digits = 1e-12 * max(1.0, np.abs(peaks[1]).max())
    np.testing.assert_allclose((found - peaks[0])[near], (expected - peaks[1])[near], rtol=0, atol=digits)
    assert np.isneginf(found[np.isneginf(expected)]).all()
    if spread == 1:
        numbers, most = sums(language, np.exp(mass.transpose(1, 0, 2)), NUMBERS)
        assert most.min() > 1e-200
        np.testing.assert_allclose(numbers / numbers.max(2, keepdims=True), np.exp(expected - peaks[1]), rtol=1e-11)


def edges(*lines: tuple[int, int, int], accepting: list[int]) -> Automaton:
    """Of (source, class, target); classes 0 to 3, a token each."""
    source, symbol, target = (np.array(column, np.int32) for column in zip(*sorted(lines), strict=True))
    accepts = np.isin(np.arange(max(target) + 1), accepting)
    return Automaton(np.arange(4, dtype=np.int32), source, symbol, target, accepts)


@pytest.mark.parametrize("far", [600.25, 735.25, 760.25])
def test_small_masses_keep_their_digits(far: float) -> None:
    """Of the texts 12, 21 and 33 the last one is far likelier; 735 below, float64 numbers have few digits left."""
    language = edges((0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 2, 4), (2, 1, 4), (3, 3, 4), accepting=[4])
    mass = np.array([[[-np.inf, -far - 5.125, -far, 0.0]] * 2])
    found = weights(language, np.full((1, 2), -1, np.int32), mass)[0, 0]
    assert found[1] - found[2] == pytest.approx(5.125, abs=1e-10)
    assert found[3] - found[2] == pytest.approx(far + 5.125, abs=1e-10)


def test_texts_whose_halves_are_unlikely_in_turn_are_told_apart() -> None:
    """1111 and 2222: at the middle neither way there and on from there is anything that float64 holds."""
    language = edges(*((0, c, c) for c in (1, 2)), *((c, c, c) for c in (1, 2)), accepting=[1, 2])
    mass = np.full((1, 4, 4), -np.inf)
    mass[0, :2, 1], mass[0, :2, 2], mass[0, 2:, 1], mass[0, 2:, 2] = 0, -600, -600, 0
    found = weights(language, np.full((1, 4), -1, np.int32), mass)[0]
    np.testing.assert_allclose(found[:, 2] - found[:, 1], [600, 600, -600, -600], rtol=1e-12)


def test_states_that_no_text_of_this_length_leads_through_do_not_decide_the_scale() -> None:
    """Texts of 2s have an even length; of an odd one there are only the unlikely 1s, which numbers hold."""
    language = edges((0, 1, 1), (1, 1, 1), (0, 2, 2), (2, 2, 3), (3, 2, 2), accepting=[1, 3])
    share = np.exp(np.broadcast_to([-np.inf, -30.0, 0.0, -np.inf], (41, 1, 4)))
    assert sums(language, share, NUMBERS)[1].min() > 1e-200
    assert sums(language, share[1:], NUMBERS)[1].min() > 1e-200


@CALM
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_what_may_stand_is_what_has_weight(seed: int, length: int) -> None:
    draw = np.random.default_rng(seed)
    language = random_language(draw, 12, length, states=6, symbols=7)
    available = draw.random((2, length, language.symbols)) < 0.7
    available[..., 0] = False
    written = np.where(draw.random((2, length)) < 0.1, 1, -1).astype(np.int32)
    weighed = weights(language, written, np.where(available, 0.0, -np.inf))
    assert (possible(language, written, available) == (available & (weighed > -np.inf))).all()


def test_a_language_that_weighs_has_no_bound() -> None:
    table = np.zeros((3, 3))
    table[[0, 1, 2], [1, 0, 2]] = 0.5, 0.1, 0.4  # nothing but texts of the language
    toy = exact.Joint(table)
    plain = LeftToRight() + Top(1) + Temperature(1) + Whole()
    held = plain + Regex("01|10|22", slot="text")
    # one at a time there is nothing that b and d could see, and yet this is not the joint
    product = np.array([0.25, 0.01, 0.16])
    law = exact.law(held, toy)
    np.testing.assert_allclose(law.table[[0, 1, 2], [1, 0, 2]], product / product.sum(), atol=1e-12)
    assert exact.tv(toy, law) > 0.09
    state = Sampler(held).run(toy, toy.canvas()).state
    assert state.error_bound[0] == state.tv_sum[0] == 0
    for policy, known in (
        (held, False),
        (plain, True),
        (plain + Choices(("01", "10", "22"), slot="text"), True),
        (plain + Regex("01|10|22", slot="text") + Choices(("01", "10", "22"), slot="text"), False),
    ):
        row = Sampler(policy).run(toy, toy.canvas()).rows[0]
        assert (row.to_dict()["error_bound"] is None) == (row.to_dict()["tv_bound"] is None) == (not known)
    # of one blank the rest is certain
    canvas = toy.canvas()
    assert bounded(complete(held), "mask", canvas.slot, canvas.blank & [[True, False]], canvas.names).all()
    assert not bounded(complete(plain), "uniform", canvas.slot, canvas.blank, canvas.names).any()
