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


def test_the_streams_are_what_they_were() -> None:
    """Texts of a seed hang on these numbers, on every machine and in every version."""
    assert row_key(0, 0) == (15335897248743506989, 3780171408911893192)
    assert row_key(-1, 3) == (16511649639851007933, 12453217756941253554)
    assert row_key(7, "a") == (7879050828974484302, 17157769203412997694)
    first = {purpose: at(7, "a", 3, 2, purpose).tolist() for purpose in PURPOSES}
    assert first == {
        "draw": [0.30084030146427143, 0.3804133142249808],
        "order": [0.44165990297891755, 0.31305891552841314],
        "count": [0.7596973301736853, 0.9661753681500139],
        "revise": [0.8572431800252431, 0.6736464522132954],
        "noise": [0.07081179498816537, 0.18884020789848222],
    }


@given(st.lists(IDS, min_size=1, max_size=4, unique=True), st.integers(0, 99))
def test_a_rows_number_is_that_of_its_first_position(rows: list[int | str], step: int) -> None:
    uniforms = Uniforms([row_key(0, row) for row in rows], np.full(len(rows), step, np.int32), 3)
    assert (uniforms.per_row("count") == uniforms.at("count")[:, 0]).all()
