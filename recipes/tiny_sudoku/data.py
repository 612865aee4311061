"""Training rows and held-out puzzles. A puzzle is held out with its whole class of symmetric ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from recipes.tiny_sudoku import text
from recipes.tiny_sudoku.board import Board, dig, dig_hard, random_grids, transform

HELD_OUT_SEED = 25_020_676
HELD_OUT_SIZE = 500


@dataclass(frozen=True)
class Puzzles:
    """Puzzles with one solution, both `[count, n²]`, 0 for an empty cell."""

    puzzle: np.ndarray
    solution: np.ndarray


def ordinary(board: Board, count: int, seed: int) -> Puzzles:
    """Puzzles that naked and hidden singles solve, with as many blanks as digging finds."""
    grids = random_grids(board, count, seed)
    return Puzzles(dig(board, grids, np.full(count, board.n**2), seed), grids)


def hard(board: Board, count: int, seed: int) -> Puzzles:
    """Puzzles with one solution that singles do not find."""
    puzzles, solutions = list[np.ndarray](), list[np.ndarray]()
    while len(puzzles) < count:
        seed += 1
        for line, grid in enumerate(random_grids(board, 64, seed)):
            if len(puzzles) < count and (puzzle := dig_hard(board, grid, seed * 64 + line)) is not None:
                puzzles.append(puzzle)
                solutions.append(grid)
    return Puzzles(np.array(puzzles), np.array(solutions))


def held_out(board: Board) -> dict[str, Puzzles]:
    """The held-out puzzles: `ordinary` and `hard`."""
    return {
        "ordinary": ordinary(board, HELD_OUT_SIZE, HELD_OUT_SEED),
        "hard": hard(board, HELD_OUT_SIZE, HELD_OUT_SEED),
    }


def write_held_out(board: Board, held_out: dict[str, Puzzles], folder: Path) -> None:
    """Writes the held-out puzzles as JSON lines: `sudoku.jsonl`, `sudoku_hard.jsonl`; of 6x6 `sudoku6.jsonl`, …"""
    size = "" if board.n == 9 else board.n
    for kind, puzzles in held_out.items():
        lines = [
            json.dumps({"id": i, "puzzle": _written(puzzle), "solution": _written(solution)})
            for i, (puzzle, solution) in enumerate(zip(puzzles.puzzle, puzzles.solution, strict=True))
        ]
        name = f"sudoku{size}{'_hard' if kind == 'hard' else ''}.jsonl"
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def _written(grid: np.ndarray) -> str:
    return "".join(str(digit) if digit else "." for digit in grid.tolist())


def rows(board: Board, tokenizer: Tokenizer, grids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of full grids, `[B, L]`, and where the cells stand, `[n²]`."""
    names = text.name_tokens(board, tokenizer)
    start, newline = tokenizer.token_to_id(text.START), tokenizer.token_to_id("Ċ")
    line, cells = [start], list[int]()
    for cell, name in enumerate(names):
        line += [newline] if cell and cell % board.n == 0 else []
        cells.append(len(line) + 1)
        line += [name, 0]
    tokens = np.tile(np.array(line), (len(grids), 1))
    tokens[:, cells] = np.array(text.digit_tokens(board, tokenizer))[grids - 1]
    return tokens, np.array(cells)


def batches(
    board: Board, tokenizer: Tokenizer, pool: Puzzles, size: int, seed: int, step: int, easy_steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (tokens, hidden), both `[B, L]`: random symmetries of the pool's puzzles, some blanks filled in.

    The share of a puzzle's blanks that are hidden is stratified over (0, 1); in the first `easy_steps` its upper end
    rises from 0.1 to 1.
    """
    signed = np.where(pool.puzzle == 0, -pool.solution, pool.solution)
    while True:
        rng = np.random.default_rng((seed, step))
        grids = transform(board, signed[rng.integers(len(signed), size=size)], rng)
        most = min(1.0, 0.1 + 0.9 * step / max(1, easy_steps))
        rate = most * (rng.permutation(size) + rng.random(size)) / size
        blank = grids < 0
        count = np.maximum(1, np.round(rate * blank.sum(1))).astype(int)
        key = np.where(blank, rng.random(grids.shape), 2.0)
        hide = key.argsort(1).argsort(1) < count[:, None]
        tokens, cells = rows(board, tokenizer, np.abs(grids))
        hidden = np.zeros(tokens.shape, np.bool_)
        hidden[:, cells] = hide
        yield tokens, hidden
        step += 1
