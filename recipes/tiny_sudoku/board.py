"""Boards and puzzles, many at a time: full grids, symmetries, what singles can solve, digging, a solver.

A board of `height x width` boxes has n = height · width digits and n² cells, row by row. Grids are `[B, n²]` int8,
0 for an empty cell.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Grids = np.ndarray


@dataclass(frozen=True)
class Board:
    """The shape of a board: its boxes are `height` rows by `width` columns."""

    height: int
    width: int

    @property
    def n(self) -> int:
        """Digits, rows, columns and boxes."""
        return self.height * self.width

    @property
    def row(self) -> np.ndarray:
        """The row of each cell, `[n²]`."""
        return np.arange(self.n**2) // self.n

    @property
    def column(self) -> np.ndarray:
        """The column of each cell, `[n²]`."""
        return np.arange(self.n**2) % self.n

    @property
    def box(self) -> np.ndarray:
        """The box of each cell, `[n²]`; boxes count row by row."""
        return self.row // self.height * self.height + self.column // self.width

    @cached_property
    def units(self) -> np.ndarray:
        """Which cells each row, column and box holds, `[3n, n²]` float32, for products."""
        return np.concatenate(
            [np.arange(self.n)[:, None] == which for which in (self.row, self.column, self.box)]
        ).astype(np.float32)

    @cached_property
    def peers(self) -> np.ndarray:
        """Which cells share a unit with each cell, itself left out, `[n², n²]` float32."""
        together = (self.units.T @ self.units > 0) & ~np.eye(self.n**2, dtype=bool)
        return together.astype(np.float32)

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """`peers` as lists."""
        return [np.flatnonzero(peers).tolist() for peers in self.peers]


def valid(board: Board, grids: Grids) -> np.ndarray:
    """Which full grids have every digit once in every unit, `[B]`."""
    held = board.units @ (grids[:, :, None] == np.arange(1, board.n + 1)).astype(np.float32)
    return (held == 1).all((1, 2))


def solutions(board: Board, puzzle: list[int], rng: random.Random | None = None, most: int = 2) -> list[list[int]]:
    """Up to `most` solutions of a puzzle, by search from the tightest cell; digits in random order with `rng`."""
    n, cells, found = board.n, list(puzzle), list[list[int]]()
    free = [(1 << n) - 1] * n**2
    for cell, digit in enumerate(puzzle):
        if digit:
            for peer in board.neighbours[cell]:
                free[peer] &= ~(1 << digit - 1)
    if any(digit and not free[cell] >> digit - 1 & 1 for cell, digit in enumerate(puzzle)):
        return []

    def search() -> None:
        empty = [cell for cell in range(n**2) if not cells[cell]]
        if not empty:
            found.append(cells.copy())
            return
        cell = min(empty, key=lambda c: free[c].bit_count())
        digits = [d for d in range(1, n + 1) if free[cell] >> d - 1 & 1]
        if rng is not None:
            rng.shuffle(digits)
        for digit in digits:
            bit = 1 << digit - 1
            touched = [peer for peer in board.neighbours[cell] if not cells[peer] and free[peer] & bit]
            cells[cell] = digit
            for peer in touched:
                free[peer] &= ~bit
            search()
            cells[cell] = 0
            for peer in touched:
                free[peer] |= bit
            if len(found) == most:
                return

    search()
    return found


def random_grids(board: Board, count: int, seed: int) -> Grids:
    """Full grids, `[count, n²]`: random search, then a random symmetry (not exactly uniform over all grids)."""
    rng = random.Random(seed)
    grids = [solutions(board, [0] * board.n**2, rng, most=1)[0] for _ in range(count)]
    return transform(board, np.array(grids, np.int8), np.random.default_rng(seed))


def transform(board: Board, grids: Grids, rng: np.random.Generator) -> Grids:
    """A random symmetry of each grid: digits renamed; bands, stacks, and rows and columns within them, permuted.

    Empty cells stay empty, and signs stay with their cells. Square boxes are transposed half of the time.
    """
    b, n = len(grids), board.n

    def lines(groups: int, size: int) -> np.ndarray:
        outer = rng.random((b, groups)).argsort(1)
        inner = rng.random((b, groups, size)).argsort(2)
        return (outer[:, :, None] * size + inner).reshape(b, n)

    rows, columns = lines(n // board.height, board.height), lines(n // board.width, board.width)
    square = grids.reshape(b, n, n)[np.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if board.height == board.width:
        flip = rng.random(b) < 0.5
        square = np.where(flip[:, None, None], square.transpose(0, 2, 1), square)
    names = np.concatenate([np.zeros((b, 1), int), rng.random((b, n)).argsort(1) + 1], 1)
    cells = square.reshape(b, n * n).astype(int)
    return (np.sign(cells) * np.take_along_axis(names, np.abs(cells), 1)).astype(np.int8)


def singles(board: Board, puzzles: Grids) -> Grids:
    """What naked and hidden singles find, `[B, n²]`: 0 where they find nothing.

    Naked single: a cell with one candidate left. Hidden single: a digit with one place left in a row, column or box.
    """
    digits = np.arange(1, board.n + 1)
    fixed = (puzzles[:, :, None] == digits).astype(np.float32)
    while True:
        open_cells = 1 - fixed.sum(2, keepdims=True)
        candidates = open_cells * (board.peers @ fixed == 0)
        naked = candidates.sum(2, keepdims=True) == 1
        hidden = board.units.T @ (board.units @ candidates == 1).astype(np.float32) > 0
        found = candidates * (naked | hidden)
        if not found.any():
            return (fixed @ digits.astype(np.float32)).astype(np.int8)
        # a puzzle without solution may offer two digits for one cell: the lower one then
        found *= np.cumsum(found, 2) == 1
        fixed = fixed + found


def dig(board: Board, grids: Grids, blanks: np.ndarray, seed: int) -> Grids:
    """Empties cells in random order while singles still solve the puzzle, up to `blanks [B]`: ordinary puzzles."""
    rng = np.random.default_rng(seed)
    puzzles, order = grids.copy(), rng.random(grids.shape).argsort(1)
    line = np.arange(len(grids))
    for cell in order.T:
        going = np.flatnonzero((puzzles == 0).sum(1) < blanks)
        if not len(going):
            break
        tried = puzzles[going]
        tried[np.arange(len(going)), cell[going]] = 0
        solved = (singles(board, tried) > 0).all(1)
        at = line[going][solved]
        puzzles[at, cell[at]] = 0
    return puzzles


def dig_hard(board: Board, grid: np.ndarray, seed: int) -> np.ndarray | None:
    """Empties cells in random order while the solution is unique; `None` if singles solve what comes out."""
    rng = random.Random(seed)
    puzzle = grid.tolist()
    for cell in rng.sample(range(board.n**2), board.n**2):
        kept, puzzle[cell] = puzzle[cell], 0
        if len(solutions(board, puzzle)) > 1:
            puzzle[cell] = kept
    hard = np.array(puzzle, np.int8)
    return None if (singles(board, hard[None]) > 0).all() else hard
