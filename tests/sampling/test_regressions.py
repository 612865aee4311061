"""Defects that a second reader found, each under the name of the promise that it broke."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import mdsample
from mdsample.core.arrays import Bools, Doubles
from mdsample.core.canvas import Canvas
from mdsample.errors import PolicyError
from mdsample.policy.base import Policy
from mdsample.policy.order import Order
from mdsample.policy.parsing import parse
from mdsample.policy.revise import Revise
from mdsample.policy.view import View
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared
from mdsample.sampling.result import Result
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.trace import Trace
from mdsample.testing import ScriptedDenoiser, Symbols

SYMBOLS = Symbols(4)
MASK, END = SYMBOLS.mask_id, SYMBOLS.end_id
MODEL = ScriptedDenoiser(SYMBOLS)


def canvas_of(*texts: str, names: tuple[str, ...] = ("reasoning", "answer")) -> Canvas:
    """Rows of letters (fixed), `0` and `1` (a blank of that slot) and `$` (a filled place of slot 0: an end token)."""
    tokens = [[END if c == "$" else MASK if c in "01" else ord(c) - ord("a") for c in text] for text in texts]
    slots = [[0 if c == "$" else int(c) if c in "01" else -1 for c in text] for text in texts]
    blank = [[c in "01" for c in text] for text in texts]
    return Canvas.of_rows([[t or 0 for t in row] for row in tokens], slots, names, MASK, blank=blank)


def run(policy: str | Policy, canvas: Canvas, seed: int = 0, model: ScriptedDenoiser = MODEL) -> Result:
    return Sampler(parse(policy) if isinstance(policy, str) else policy, seed=seed).run(model, canvas)


@attrs.frozen
class Odd(Order):
    """Ranks by a number that is no rank."""

    name = "odd"
    value: float

    @property
    def noise_scale(self) -> float:
        return 0.0

    def rank(self, view: View) -> Doubles:
        return np.where(view.batch.open_index % 2 == 0, self.value, 1.0)


@attrs.frozen
class Again(Revise):
    """Masks whatever it may."""

    name = "again"

    @property
    def budget(self) -> int:
        return 3

    def remask(self, view: View) -> Bools:
        return ~view.batch.blank


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_every_step_commits_whatever_an_order_says(value: float) -> None:
    (row,) = run(Policy.of(mdsample.Whole(), Odd(value)), canvas_of("ab00000")).rows
    assert (row.steps, row.unfilled) == (5, 0)


def test_the_order_of_commits_does_not_hang_on_padding() -> None:
    # with noise, what lay outside the window was ordered by an unstable sort, which knew how wide the batch was
    long, short = "a" * 560 + "0" * 40, "a" + "0" * 40
    canvas = canvas_of(long, short)
    together, alone = run("random+budget(1)", canvas).rows[1], run("random+budget(1)", canvas.take([1])).rows[0]
    assert [c.position for c in together.commits] == [c.position for c in alone.commits]


def test_a_filled_slot_leaves_without_a_further_pass_when_a_rule_fills_it() -> None:
    policy = "whole+random+temperature(1)+ended+early-exit(0.000001)"
    for seed in range(20):
        result = run(policy, canvas_of("a000000b111"), seed, ScriptedDenoiser(SYMBOLS, seed))
        assert all(len(event.row) for event in result.state.events if len(event.rows))


def test_a_row_is_not_called_certain_when_its_slot_was_merely_filled() -> None:
    (row,) = run("whole+right-to-left+early-exit(0.000000001)", canvas_of("a000000b11")).rows
    assert (row.outcome.name, row.unfilled) == ("early-exit", 6)
    assert row.outcome.sentence == "The slot 'answer' was filled, so the rest was left."


def test_a_run_goes_on_from_the_first_state_of_its_trace() -> None:
    result = run("med", canvas_of("ab", "a0"))
    sampler, state = Sampler(result.policy), next(Trace.of(result).states())
    while not state.done:
        state, _ = sampler.step(MODEL, state)
    assert state.nfe.tolist() == result.state.nfe.tolist() == [0, 1]
    state, event = sampler.step(MODEL, next(Trace.of(run("med", canvas_of("ab"))).states()))
    assert state.done
    assert event.left.tolist() == [0]


def test_a_step_may_be_of_some_rows_that_are_running() -> None:
    sampler, canvas = Sampler("one-by-one"), canvas_of("a00", "b00")
    state, event = sampler.step(MODEL, sampler.start(MODEL, canvas), rows=np.array([1], np.int32))
    assert event.rows.tolist() == [1] and state.nfe.tolist() == [0, 1]
    state, _ = sampler.step(MODEL, state, rows=np.array([1], np.int32))
    assert state.active.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"of the rows \[1\] some have left; give rows that are still running"):
        sampler.step(MODEL, state, rows=np.array([1], np.int32))


@pytest.mark.parametrize("policy", ["ended", "budget(2)", "early-exit(9,slot='reasoning')"])
def test_no_mask_is_left_by_revision_in_a_row_that_leaves(policy: str) -> None:
    for seed in range(4):
        result = run(parse(policy) + mdsample.Temperature(1.0) + Again(), canvas_of("a00000"), seed)
        assert result.rows[0].unfilled == 0
        np.testing.assert_array_equal(Trace.of(result).replay().tokens, result.state.tokens)


def test_an_end_token_that_stands_in_a_slot_beforehand_ends_it() -> None:
    (row,) = run("ended+ban([4])", canvas_of("a0$00")).rows
    assert row.tokens.tolist()[2:] == [END] * 3
    assert [c.position for c in row.commits if c.by_rule] == [3, 4]


def test_choices_take_no_rows_ragged_slots_and_rows_without_the_slot() -> None:
    assert run("choices(['ab'])", canvas_of()).rows.rows == ()
    rows = run("choices(['ab'])+blocks(2)", canvas_of("a11", "ab111", "abc0")).rows
    assert [row.slots.get("answer") for row in rows] == ["ab", "ab", None]
    with pytest.raises(PolicyError, match="'abc' is 3 tokens, but slot 'answer' has 2"):
        run("choices(['abc'])", canvas_of("a11", "ab111"))


def test_choices_do_not_ignore_what_stands_in_the_slot() -> None:
    slot = [[0, 0, 0]]
    canvas = Canvas.of_rows([[2, MASK, MASK]], slot, ("answer",), MASK, ["x"], [[False, True, True]])
    with pytest.raises(PolicyError, match="slot 'answer' of row 'x' already agrees with none"):
        run("choices(['abc','bad'])", canvas)
    assert run("choices(['abc','cad'])", canvas).rows[0].slots == {"answer": "cad"}


def test_ended_does_not_cut_a_choice_off() -> None:
    with pytest.raises(PolicyError, match=r"ended\('a'\) would cut off 'bad'"):
        run("ended('a')+choices(['bad'])", canvas_of("a111"))
    assert run("ended('d')+choices(['bad'])", canvas_of("a1111")).rows[0].slots == {"answer": "bad"}


def test_two_lists_of_choices_leave_what_is_in_both() -> None:
    with pytest.raises(PolicyError, match="no text in common"):
        run("choices(['bad'])+choices(['dab'])", canvas_of("a111"))
    assert run("choices(['bad','dab'])+choices(['dab'])", canvas_of("a111")).rows[0].slots == {"answer": "dab"}


def test_rows_without_tokens_or_slots_have_a_result() -> None:
    empty, fixed = run("med", canvas_of("", "abc")).rows
    assert (empty.text, empty.slots, empty.nfe) == ("", {}, 0)
    assert (fixed.text, fixed.slots, fixed.nfe) == ("", {}, 0)


def test_a_slot_that_fixed_text_parts_is_read_whole() -> None:
    (row,) = run("ban([4])", canvas_of("00c0")).rows
    assert row.slots == {"reasoning": SYMBOLS.decode([*row.tokens[:2].tolist(), int(row.tokens[3])])}
    assert row.text == SYMBOLS.decode(row.tokens.tolist())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (([[MASK, 0]], [[-1, -1]], [[True, False]], [[True, True]]), "a blank must belong to a slot"),
        (([[MASK, 0]], [[1, -1]], [[True, False]], [[True, True]]), "slot numbers must lie below 1"),
        (([[0, MASK]], [[-1, 0]], [[False, True]], [[False, True]]), "padding must stand at the end"),
    ],
)
def test_a_canvas_that_would_be_misread_is_refused(arrays: tuple[list[list[int]], ...], said: str) -> None:
    tokens, slot, blank, valid = arrays
    with pytest.raises(ValueError, match=said):
        Canvas(
            np.array(tokens, np.int32),
            np.array(blank, np.bool_),
            np.array(slot, np.int32),
            np.array(valid, np.bool_),
            ("text",),
            (0,),
        )


def test_an_id_is_the_same_number_whatever_its_type(tmp_path: Path) -> None:
    tokens, slots = [[MASK] * 6] * 2, [[0] * 6] * 2
    plain = run("one-by-one", Canvas.of_rows(tokens, slots, ("text",), MASK, [0, 1]))
    ids: Any = np.arange(2)
    numpy = run("one-by-one", Canvas.of_rows(tokens, slots, ("text",), MASK, ids))
    assert plain.state.tokens.tolist() == numpy.state.tokens.tolist()
    Trace.of(numpy).save(tmp_path / "trace")
    assert Trace.load(tmp_path / "trace").canvas.ids == (0, 1)


@pytest.mark.parametrize("text", ["top(K)", "steps(K)", "linear-time(K)", "blocks(K)", "med(k=K)", "eb(k=K)"])
def test_a_number_that_no_array_holds_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number, at least 1, at most 2147483647(, or none)?; got 3"):
        parse(text.replace("K", "3000000000"))
    assert run(text.replace("K", "2147483647"), canvas_of("a000")).rows[0].unfilled == 0


def test_rows_of_one_id_are_refused_wherever_they_stand() -> None:
    rows = [Prepared(0, [first, MASK], [-1, 0], [False, True]) for first in (0, 1)]
    with pytest.raises(ValueError, match="row ids must differ"):
        list(fill(Sampler(parse("med")), MODEL, ("text",), rows, batch_size=1, chunk_size=1))


def test_a_sampler_reads_policy_text() -> None:
    assert mdsample.Sampler("med") == mdsample.Sampler(parse("med"))
    with pytest.raises(TypeError, match="a sampler runs a Policy, a Part or text such as 'med'; got 3"):
        mdsample.Sampler(3)  # type: ignore[arg-type]
