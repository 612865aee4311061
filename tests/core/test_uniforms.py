"""Random numbers depend on seed, row, purpose, step and position, and on nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdsample.core.uniforms import Purpose, Uniforms, row_key

PURPOSES: list[Purpose] = ["draw", "order", "count", "revise", "noise"]
SEEDS = st.integers(-(2**70), 2**70)
IDS = st.integers() | st.text(max_size=5)


def at(seed: int, row: int | str, step: int, length: int, purpose: Purpose = "draw") -> np.ndarray:
    return Uniforms([row_key(seed, row)], np.array([step], np.int32), length).at(purpose)[0]


@given(SEEDS, IDS, st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(0, 40))
def test_padding_changes_nothing(seed: int, row: int | str, step: int, length: int, more: int) -> None:
    alone = at(seed, row, step, length)
    assert (alone == at(seed, row, step, length + more)[:length]).all()
    assert ((alone > 0) & (alone < 1)).all()


@given(SEEDS, st.lists(IDS, min_size=1, max_size=4, unique=True), st.integers(0, 99))
def test_company_changes_nothing(seed: int, rows: list[int | str], step: int) -> None:
    together = Uniforms([row_key(seed, row) for row in rows], np.full(len(rows), step, np.int32), 9).at("order")
    for i, row in enumerate(rows):
        assert (together[i] == at(seed, row, step, 9, "order")).all()


def test_everything_else_changes_everything() -> None:
    streams = [
        at(seed, row, step, 64, purpose)
        for seed in (0, 1, -1, 2**64)
        for row in (0, "0", 1, "", "a")
        for step in (0, 1, 2)
        for purpose in PURPOSES
    ]
    assert len({x for stream in streams for x in stream.tolist()}) == 64 * len(streams)


def test_they_are_uniform() -> None:
    drawn = np.concatenate([at(7, row, step, 50) for row in range(40) for step in range(10)])
    counts = np.histogram(drawn, 50, (0, 1))[0]
    chi_square = ((counts - 400) ** 2 / 400).sum()
    assert chi_square < 85.4  # 99.9 % of chi-square with 49 degrees of freedom
