"""The boards of recipes/tiny_sudoku: what the embedded Sudoku models are trained on and judged by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdsample.tasks.catalog import sudoku
from recipes.tiny_sudoku.board import Board, dig, dig_hard, random_grids, singles, solutions, transform, valid

BOARDS = [Board(2, 2), Board(2, 3), Board(3, 2), Board(3, 3)]
boards = pytest.mark.parametrize("board", BOARDS, ids=lambda b: f"{b.height}x{b.width}")
seeds = st.integers(0, 2**20)
few = settings(max_examples=10, deadline=None)


@boards
@few
@given(seed=seeds)
def test_grids_and_their_symmetries_are_valid(board: Board, seed: int) -> None:
    grids = random_grids(board, 5, seed)
    assert valid(board, grids).all()
    assert valid(board, transform(board, grids, np.random.default_rng(seed))).all()
    broken = grids.copy()
    broken[:, 0] = broken[:, 1]
    assert not valid(board, broken).any()


@pytest.mark.slow
@boards
@few
@given(seed=seeds)
def test_ordinary_puzzles_have_one_solution_which_singles_find(board: Board, seed: int) -> None:
    grids = random_grids(board, 3, seed)
    most = np.array([0, board.n, board.n**2])
    puzzles = dig(board, grids, most, seed)
    assert ((puzzles == 0) | (puzzles == grids)).all()
    assert ((puzzles == 0).sum(1) <= most).all()
    assert (singles(board, puzzles) == grids).all()
    for puzzle, grid in zip(puzzles.tolist(), grids.tolist(), strict=True):
        assert solutions(board, puzzle) == [grid]


@pytest.mark.slow
@few
@given(seed=seeds)
def test_hard_puzzles_have_one_solution_which_singles_do_not_find(seed: int) -> None:
    board = Board(2, 3)
    for grid in random_grids(board, 10, seed):
        puzzle = dig_hard(board, grid, seed)
        if puzzle is not None:
            assert solutions(board, puzzle.tolist()) == [grid.tolist()]
            found = singles(board, puzzle[None])[0]
            assert ((found == 0) | (found == grid)).all()
            assert (found == 0).any()


def test_the_solver_finds_every_solution() -> None:
    # two rows of a 4x4 board can be swapped when nothing in them is given
    board = Board(2, 2)
    grid = [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]
    puzzle = [*grid[:4], *grid[4:8], *[0] * 8]
    found = solutions(board, puzzle, most=100)
    assert grid in found
    assert valid(board, np.array(found, np.int8)).all()
    assert len({tuple(f) for f in found}) == len(found) == 4
    assert solutions(board, [1, 1, *[0] * 14]) == []
    assert len(solutions(board, [0] * 16, most=1000)) == 288  # the known number of 4x4 grids


@few
@given(seed=seeds)
def test_symmetries_keep_puzzle_and_solution_together(seed: int) -> None:
    board = Board(3, 3)
    grids = random_grids(board, 2, seed)
    puzzles = dig(board, grids, np.full(2, 30), seed)
    signed = transform(board, np.where(puzzles == 0, -grids, grids), np.random.default_rng(seed))
    assert valid(board, np.abs(signed)).all()
    assert (singles(board, np.maximum(signed, 0)) == np.abs(signed)).all()


@pytest.mark.backend
@boards
def test_training_rows_are_what_the_template_says(board: Board) -> None:
    pytest.importorskip("torch")
    from recipes.tiny_sudoku import data, text

    words = text.build(board)
    grids = random_grids(board, 4, 0)
    tokens, cells = data.rows(board, words, grids)
    written = sudoku.board(board.n)
    for name, digit in zip(sudoku.cells(board.n), grids[2].tolist(), strict=True):
        written = written.replace(f"{{{name}:1}}", str(digit))
    assert words.encode(written).ids == tokens[2, 1:].tolist()
    assert words.decode(tokens[2, 1:].tolist()) == written
    assert words.decode(tokens[2, cells].tolist()) == "".join(map(str, grids[2].tolist()))
    clean, hidden = next(data.batches(board, words, data.ordinary(board, 4, 0), 16, 0, 10**6, 1))
    assert not np.delete(hidden, cells, 1).any()
    assert hidden.any(1).all()
    assert clean.shape == hidden.shape == (16, len(tokens[0]))
