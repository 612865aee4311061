"""Sudoku as text: ` A1=5 A2=3 …`, a line for each row of the board. Every cell is a slot; a puzzle's clues are given.

A puzzle is written as one character a cell, row by row, `.` for an empty one.
"""

from __future__ import annotations

import math

_ROWS = "ABCDEFGHI"


def cells(n: int) -> list[str]:
    """Names of the n² cells, row by row: a letter for the row, a number for the column."""
    return [f"{row}{column}" for row in _ROWS[:n] for column in range(1, n + 1)]


def board(n: int) -> str:
    """The text of the template of an n x n board: a slot of length 1 for each cell, under the cell's name."""
    return "\n".join("".join(f" {row}{column}={{{row}{column}:1}}" for column in range(1, n + 1)) for row in _ROWS[:n])


def clues(puzzle: str) -> dict[str, str]:
    """What the cells of a puzzle hold, by name, without the empty ones."""
    names = cells(math.isqrt(len(puzzle)))
    return {name: digit for name, digit in zip(names, puzzle, strict=True) if digit != "."}
