"""What always holds (docs/architecture.md), on random sums of every part, random templates, random toy models."""

from __future__ import annotations

import re
from typing import ClassVar, final

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import mdsample
from mdsample import testing
from mdsample.core.arrays import Ints
from mdsample.core.canvas import Canvas
from mdsample.core.html import BLANK
from mdsample.policy.base import Part, Policy
from mdsample.policy.catalog import PARTS
from mdsample.policy.complete import complete
from mdsample.policy.settings import real
from mdsample.policy.view import Ranked, View
from mdsample.policy.window import BLOCK
from mdsample.testing import ScriptedDenoiser, Symbols
from mdsample.testing.part import every_setting_matters
from mdsample.testing.strategies import around
from mdsample.testing.worlds import LETTERS, TEXTS, canvases
from mdsample.testing.worlds import denoisers as models

POLICIES = testing.policies(("answer",), vocab=LETTERS, texts=TEXTS)


@pytest.mark.slow
@given(POLICIES, models(), canvases(), st.integers(0, 3))
def test_every_policy_keeps_its_promises(policy: Policy, model: ScriptedDenoiser, canvas: Canvas, seed: int) -> None:
    for row in testing.keeps_its_promises(policy, model, canvas, seed).rows:
        assert row.unfilled == 0 or row.outcome.name == "early-exit"
        assert row.text_with_blanks.replace(BLANK, "").strip() == row.text
        left = [row.blank[place] for place, _ in row.shown()]
        assert row.text_with_blanks.count(BLANK) == sum(left) <= row.unfilled


@pytest.mark.slow
@given(st.data(), models())
def test_a_fixed_order_is_followed(data: st.DataObject, model: ScriptedDenoiser) -> None:
    canvas = data.draw(canvases(even=True))
    blanks = int(canvas.blank.sum(1)[0])
    order = data.draw(st.permutations(range(blanks)))
    policy = mdsample.Whole() + mdsample.Fixed(tuple(order)) + mdsample.Top(1)
    for i, row in enumerate(testing.run(policy, model, canvas).rows):
        places = np.flatnonzero(canvas.blank[i])
        assert [c.position for c in row.commits] == places[order].tolist()


@pytest.mark.slow
@given(POLICIES, models(), canvases())
def test_constraints_hold(policy: Policy, model: ScriptedDenoiser, canvas: Canvas) -> None:
    symbols = model.tokenizer
    result = testing.run(policy, model, canvas)
    for part in policy.at("constraint"):
        for i, row in enumerate(result.rows):
            here = canvas.blank[i, : len(row.tokens)] & (row.tokens != symbols.mask_id)
            by_model = here.copy()
            by_model[[c.position for c in row.commits if c.by_rule]] = False
            if isinstance(part, mdsample.Ban):
                assert not set(row.tokens[by_model].tolist()) & set(part.tokens)
            if isinstance(part, mdsample.Allow):
                here = by_model & (canvas.slot[i, : len(row.tokens)] == canvas.names.index(part.slot))
                assert set(row.tokens[here].tolist()) <= set(part.tokens)
            if isinstance(part, mdsample.Characters):
                spelled = row.tokens[by_model & (canvas.slot[i, : len(row.tokens)] == 1)]
                assert set(symbols.decode(spelled.tolist())) <= set(part.characters)
            if isinstance(part, mdsample.Choices) and not row.unfilled:
                assert row.slots["answer"] in part.texts


@pytest.mark.slow
@given(models(), canvases(), st.integers(1, 12), POLICIES)
def test_a_budget_is_a_budget(model: ScriptedDenoiser, canvas: Canvas, nfe: int, policy: Policy) -> None:
    policy = around(policy.without("stop"), mdsample.Budget(nfe), model.tokenizer)
    passes = mdsample.Sampler(policy).plan(model, canvas).passes
    for row in testing.run(policy, model, canvas).rows:
        assert row.nfe <= max(nfe, passes)
        assert row.unfilled == 0


@pytest.mark.slow
@given(models(), canvases(), st.just(0.0) | st.floats(0.001, 20), POLICIES)
def test_an_error_budget_is_a_budget(model: ScriptedDenoiser, canvas: Canvas, total: float, policy: Policy) -> None:
    # stop rules spend on top, so only the one that never fills by itself is here
    rest = policy.without("stop") + Policy(stop for stop in policy.at("stop") if isinstance(stop, mdsample.Ended))
    match rest.at("revise"):
        case [mdsample.P2Remask(limit=limit)]:  # which has a selection of its own
            rest = rest.replace(mdsample.BelowConfidence(0.5, limit=limit))
        case [mdsample.Holding()]:  # whose windows end by being filled, and whose rows have no bound
            rest = rest.without("revise")
        case _:
            pass
    result = testing.run(rest.replace(mdsample.ErrorBudget(total)), model, canvas)
    assert (result.state.error_bound <= total).all()
    for row, again in zip(result.rows, result.state.remasked.tolist(), strict=True):
        # a language that weighs the rest of its text leaves a row without a bound
        assert row.error_bound <= total or again or np.isinf(row.error_bound)


@pytest.mark.slow
@given(models(), canvases(), st.integers(1, 12), st.integers(2, 4))
def test_rounds_are_filled_one_a_step(model: ScriptedDenoiser, canvas: Canvas, size: int, base: int) -> None:
    policy = mdsample.Dilated(size, base=base) + mdsample.Steps(1)
    for i, row in enumerate(testing.run(policy, model, canvas).rows):
        left = list(enumerate(np.flatnonzero(canvas.blank[i]).tolist()))
        step = 0
        while left:
            block = [(n, p) for n, p in left if n // size == left[0][0] // size]
            strides = (max(1, size // base**t) for t in range(1, 9))
            now = next(filter(None, ([p for n, p in block if n % size % stride == 0] for stride in strides)))
            assert sorted(c.position for c in row.commits if c.step == step) == now
            left, step = [(n, p) for n, p in left if p not in now], step + 1


@pytest.mark.slow
@given(models(), canvases(), st.integers(1, 16), POLICIES)
def test_an_even_split_ends_in_time(model: ScriptedDenoiser, canvas: Canvas, n: int, policy: Policy) -> None:
    # tokens that are masked again need steps beyond the split
    rest = policy.without("stop", "revise").replace(mdsample.Steps(n))
    match complete(rest).window:
        case mdsample.Blocks(size=given_size):
            size, rounds = given_size or BLOCK, 1
        case mdsample.LedBlocks(size=part):
            size, rounds = BLOCK, 1 + -(-BLOCK // part)
        case mdsample.Dilated(size=size):
            rounds = size.bit_length()
        case _:
            size, rounds = 1 << 20, 1
    for i, row in enumerate(testing.run(rest, model, canvas).rows):
        blocks = -(-int(canvas.blank[i].sum()) // size)
        assert row.steps <= max(n, blocks * rounds)


@pytest.mark.slow
@given(models(), canvases(), POLICIES)
def test_after_an_end_token_a_slot_counts_as_filled(model: ScriptedDenoiser, canvas: Canvas, policy: Policy) -> None:
    # an end token that is masked again may leave behind what was filled on its account
    ended = policy.without("stop", "constraint", "revise") + mdsample.Ended()
    result = testing.run(ended, model, canvas)
    end = model.tokenizer.end_id
    for i, row in enumerate(result.rows):
        order = {c.position: n for n, c in enumerate(row.commits)}
        for number in range(2):
            places = np.flatnonzero(canvas.slot[i] == number)
            ends = [p for p in places if row.tokens[p] == end]
            for p in places:
                by_rule = row.commits[order[p]].by_rule
                assert not by_rule or (row.tokens[p] == end and ends[0] < p)


@pytest.mark.slow
@given(models(), st.integers(3, 9), POLICIES, st.sets(st.sampled_from(["a", "b", "c", "ab", "ca"]), min_size=1))
def test_up_to_a_text_that_ends_it_a_slot_is_what_it_would_have_been(
    model: ScriptedDenoiser, length: int, policy: Policy, texts: set[str]
) -> None:
    # one slot: others see what stands after the text
    bare = policy.without("stop", "constraint", "revise")
    mask = model.tokenizer.mask_id
    canvas = Canvas.of_rows([[0, *[mask] * length, 1]], [[-1, *[0] * length, -1]], ("answer",), mask, ["row"])
    until = Policy.of(mdsample.Until(tuple(sorted(texts))))
    whole, cut = (testing.run(each, model, canvas).rows[0] for each in (bare, bare + until))
    pattern = re.compile("|".join(map(re.escape, texts)))
    first, again = (pattern.split(row.slots["answer"])[0] for row in (whole, cut))
    assert first == again
    assert cut.nfe <= whole.nfe
    by_rule = [commit for commit in cut.commits if commit.by_rule]
    assert {commit.token for commit in by_rule} <= {model.tokenizer.end_id}
    if by_rule:
        before = model.tokenizer.decode(cut.tokens[1 : min(commit.position for commit in by_rule)].tolist())
        assert pattern.search(before)
    assert cut.unfilled == 0


#: parts whose settings mean more than the strategies know
MADE: dict[str, SearchStrategy[Part]] = {
    "ended": st.builds(mdsample.Ended, st.sampled_from(["end", "a", "b"]), when=st.sampled_from(["seen", "reached"])),
    "fixed": st.builds(mdsample.Fixed, st.permutations(range(8))),
    # what it scores shows where a clock of few steps leaves blanks beside tokens
    "p2-reveal": st.builds(
        mdsample.P2Reveal,
        st.sampled_from([0.3, 1.0, 3.0]),
        steps=st.integers(2, 9),
        scores=st.sampled_from(["own", "best"]),
    ),
}


#: what they hold is written in digits, which toys do not have; tests/policy/test_language.py has their settings
WRITTEN = {"integer", "number", "date"}


@pytest.mark.parametrize(
    "name", sorted(name for name, part in PARTS.items() if attrs.fields(part) and name not in WRITTEN)
)
def test_every_setting_matters(name: str) -> None:
    """Changing any field of any part changes some result, on some toy model."""
    every_setting_matters(PARTS[name], MADE.get(name))


@pytest.mark.slow
@pytest.mark.parametrize("part", [mdsample.Blocks, mdsample.Confidence, mdsample.Stable, mdsample.Budget, mdsample.Ban])
def test_parts_pass_the_suite_for_parts(part: type[Part]) -> None:
    testing.check_part(part)


class Broken(mdsample.Selection):
    """A selection for tests of the suite: each subclass breaks one promise."""

    name: ClassVar[str] = "broken"

    def count(self, view: View, ranked: Ranked) -> Ints:
        return np.ones(len(ranked.number), np.int32)


@final
@attrs.frozen
class Idle(Broken):
    """Its setting is of no use."""

    share: float = real(default=0.5, above=0, at_most=1)


@final
@attrs.frozen
class Neighbourly(Broken):
    """Rows are not alone."""

    def count(self, view: View, ranked: Ranked) -> Ints:
        return np.full(len(ranked.number), len(ranked.number), np.int32)


@final
@attrs.frozen
class Positional(Broken):
    """Two settings without a name."""

    one: float = real(default=0.5)
    two: float = real(default=0.5)


@final
class Open(Broken):
    """Not a frozen value."""


@pytest.mark.parametrize(
    ("part", "message"),
    [
        pytest.param(Idle, r"broken\(share=…\) changed nothing", marks=pytest.mark.slow),
        (Neighbourly, None),
        (Positional, "all settings but the first must be kw_only: two"),
        (Open, "Open must be @attrs.frozen"),
    ],
)
def test_a_part_that_breaks_a_promise_fails_the_suite(part: type[Part], message: str | None) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_part(part)


@pytest.mark.slow
def test_a_setting_of_no_known_domain_needs_a_strategy() -> None:
    @final
    @attrs.frozen
    class Bare(Broken):
        """A setting that does not say what it accepts."""

        most: int = 1

        def count(self, view: View, ranked: Ranked) -> Ints:
            return np.full(len(ranked.number), self.most, np.int32)

    with pytest.raises(LookupError, match=r"broken\(most=…\) does not say what it accepts"):
        testing.check_part(Bare)
    testing.check_part(Bare, st.builds(Bare, st.integers(1, 4)))


@pytest.mark.parametrize("seed", range(8))
def test_choices_stay_whole_when_filled_in_one_step(seed: int) -> None:
    symbols = Symbols(LETTERS)
    texts = ("abc", "bca", "cab", "ddd")
    canvas = mdsample.Template.parse("{answer:3}").canvas(symbols, [{}] * 8)
    policy = mdsample.Choices(texts) + mdsample.Top(3) + mdsample.Temperature(1.0)
    rows = testing.run(policy, ScriptedDenoiser(symbols, sharpness=0.5), canvas, seed).rows
    assert all(row.nfe == 1 and row.slots["answer"] in texts for row in rows)
    assert len({row.slots["answer"] for row in rows}) > 1
