"""How steps are split over blocks: as LLaDA's `generate` splits them, and never into more than were asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.core.canvas import Canvas
from mdsample.policy.selection import Steps
from mdsample.testing import ScriptedDenoiser, Symbols


def published(blanks: int, size: int, steps: int) -> list[int]:
    """How many are filled in each step: every block gets as many steps, the first ones of a block one token more."""
    each = steps // (blanks // size)
    block = [size // each + (place < size % each) for place in range(each)]
    return block * (blanks // size)


def ran(blanks: int, size: int, steps: int) -> list[int]:
    symbols = Symbols(5)
    canvas = Canvas.of_rows([[0] * blanks], [[0] * blanks], ("a",), symbols.mask_id)
    run = mdsample.Sampler(f"llada({steps})+blocks({size})").run(ScriptedDenoiser(symbols), canvas)
    made = [commit.step for commit in run.rows[0].commits]
    return [made.count(step) for step in range(run.rows[0].steps)]


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 12), st.data())
def test_the_loop_fills_as_many_in_each_step(blocks: int, size: int, data: Any) -> None:
    steps = blocks * data.draw(st.integers(1, size))
    assert ran(blocks * size, size, steps) == published(blocks * size, size, steps)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 45))
def test_no_more_steps_than_were_asked_for(blanks: int, size: int, steps: int) -> None:
    assert len(ran(blanks, size, steps)) <= max(steps, -(-blanks // size))


@pytest.mark.slow
def test_every_setting_that_llada_accepts() -> None:
    """All of up to 256 blanks in multiples of 4, all at once."""
    accepted = [
        (blanks, size, steps)
        for blanks in range(4, 257, 4)
        for size in range(1, blanks + 1)
        if blanks % size == 0
        for steps in range(blanks // size, blanks + 1, blanks // size)
    ]
    assert len(accepted) == 18679
    by_steps: dict[int, list[tuple[int, int]]] = {}
    for blanks, size, steps in accepted:
        by_steps.setdefault(steps, []).append((blanks, size))
    for steps, some in by_steps.items():
        total, size = np.array(some, np.int64).T
        expected = [published(int(blanks), int(block), steps) for blanks, block in some]
        left = total.copy()
        for step in range(steps):
            inside = np.where(left > 0, (left - 1) % size + 1, 0)
            view: Any = SimpleNamespace(
                batch=SimpleNamespace(
                    blank=np.arange(256) < left[:, None],
                    initially_blank=np.arange(256) < total[:, None],
                    step=np.full(len(some), step, np.int32),
                )
            )
            ranked: Any = SimpleNamespace(number=inside)
            count = Steps(steps).count(view, ranked)
            assert count.tolist() == [filled[step] for filled in expected]
            left = left - count
        assert not left.any()
