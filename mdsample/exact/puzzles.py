"""Puzzles and other small laws with a point: each shows one thing that filling several blanks at once can break."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike

from mdsample.core.arrays import Doubles, Ints
from mdsample.exact.joint import Joint, Listed
from mdsample.exact.toy import distribution, every_row


def sudoku4(clues: str = "." * 16) -> Listed:
    """The 288 grids of 4x4 Sudoku, all equally likely; tokens 0 … 3, positions row by row.

    `clues`: 16 characters, a digit where a cell is given and anything else where it is blank; `canvas()` has them.
    """
    rows = np.array(list(itertools.permutations(range(4))), np.int32)
    grids = rows[:, None, :]  # [S, rows so far, 4]
    for number in range(1, 4):
        old, new = np.indices((len(grids), len(rows))).reshape(2, -1)
        grids = np.concatenate([grids[old], rows[new][:, None]], 1)
        clash = (grids[:, :-1] == grids[:, -1:]).any((1, 2))
        if number % 2:  # the second row of a band completes two boxes
            clash |= (np.sort(grids[:, -2:, :2].reshape(len(grids), 4), 1) != np.arange(4)).any(1)
        grids = grids[~clash]
    if len(clues) != 16:
        raise ValueError(f"sudoku4: clues are 16 characters, one a cell; got {len(clues)}")
    given = {cell: int(digit) for cell, digit in enumerate(clues) if digit.isdecimal()}
    return Listed(grids.reshape(-1, 16), 4, name="sudoku4", slots={"grid": 16}, given=given)


def nae_sat(n: int, p: int, seed: int = 0) -> Listed:
    """Latents and observations, not all equal (L&O-NAE-SAT of arXiv 2502.06768): V = 2, length `n + p`.

    The first `n` tokens are latent: independent fair bits x. The other `p` are observed: o_j = 1 if x_a, x_b, x_c are
    not all equal, else 0, where (a, b, c) is a triple of different latents that `seed` draws once for each j
    (`nae_triples`). So observations given their latents are certain, and latents given observations are a hard puzzle.
    Conditionals go through all 2^n latent rows; `n` at most 16. Latents stand before observations; in which order
    positions are filled is the policy's business.
    """
    if not (3 <= n <= 16 and p >= 0):
        raise ValueError(f"nae_sat: needs 3 to 16 latents and no negative number of observations; got n={n}, p={p}")
    latent = every_row(n, 2)
    rows = np.concatenate([latent, not_all_equal(latent, nae_triples(n, p, seed))], 1)
    return Listed(rows, 2, name="nae-sat", slots={"latent": n, **({"observed": p} if p else {})})


def nae_triples(n: int, p: int, seed: int = 0) -> Ints:
    """Which three latents each observation of `nae_sat` tests, `[p, 3]`."""
    draw = np.random.default_rng(seed)
    return np.array([draw.choice(n, 3, replace=False) for _ in range(p)], np.int32).reshape(p, 3)


def not_all_equal(latent: Ints, triples: Ints) -> Ints:
    """The observations `[B, p]` that belong to bits `latent [B, n]`."""
    seen = latent[:, triples]
    return (seen.min(2) != seen.max(2)).astype(np.int32)


def same_word(words: int = 4, length: int = 4) -> Listed:
    """All tokens equal, every word equally likely: filling two blanks at once is wrong with probability 1 − 1/words."""
    rows = np.repeat(np.arange(words, dtype=np.int32)[:, None], length, 1)
    return Listed(rows, words, name="same-word")


def product(margins: ArrayLike) -> Joint:
    """Independent positions, `margins [L, V]`: filling everything at once is exact."""
    return Joint(_outer(distribution(margins, "product: margins", 2)), name="product")


def mixture(weights: ArrayLike, margins: ArrayLike) -> Joint:
    """A hidden topic, `weights [K]`, then independent positions given it, `margins [K, L, V]`.

    Every token tells of the topic, and given the topic nothing depends on anything: the first few tokens are the
    expensive ones, as in a text whose subject is still open.
    """
    parts = distribution(margins, "mixture: margins", 3)
    topics = distribution(weights, "mixture: weights", 1)
    if len(topics) != len(parts):
        raise ValueError(f"mixture: {len(topics)} weights for {len(parts)} topics; give one each")
    tables = np.stack([_outer(part) for part in parts])
    return Joint(np.tensordot(topics, tables, 1), name="mixture")


def coupled(strength: float, seed: int = 0, *, length: int = 5, size: int = 3) -> Joint:
    """A random joint whose positions depend on one another the more, the larger `strength`: at 0 they do not.

    Up to a constant ln p(x) = Σ h_i(x_i) + strength · Σ_{i<j} J_ij(x_i, x_j), a Potts model with random fields: J is
    standard normal, h is normal with a scale between 0.5 and 4 of each position's own, so that some positions are
    nearly certain and some wide open.
    """
    draw = np.random.default_rng(seed)
    field = draw.uniform(0.5, 4.0, (length, 1)) * draw.standard_normal((length, size))
    bond = draw.standard_normal((length, length, size, size))
    rows = every_row(length, size)
    score = field[np.arange(length), rows].sum(1)
    for i, j in itertools.combinations(range(length), 2):
        score += strength * bond[i, j, rows[:, i], rows[:, j]]
    return Joint(np.exp(score - score.max()).reshape((size,) * length), name=f"coupled({strength:g})")


def reasoning(length: int = 4, size: int = 3, answer: str = "largest", seed: int = 0) -> Listed:
    """Slots `reasoning`, a chain of `length` digits, and `answer`, one digit that is a function of them.

    `answer`: `largest` is settled as soon as the largest digit has been seen, so leaving early pays; `sum` (modulo
    `size`) is open until the last digit is known. The chain moves on from each digit by a seeded random law.
    """
    if answer not in ("largest", "sum"):
        raise ValueError(f"reasoning: answer is 'largest' or 'sum'; got {answer!r}")
    draw = np.random.default_rng(seed)
    step = draw.dirichlet(np.full(size, 0.6), size)
    digits = every_row(length, size)
    weight = np.full(len(digits), 1 / size)
    for before, after in itertools.pairwise(digits.T):
        weight = weight * step[before, after]
    answers = digits.max(1) if answer == "largest" else digits.sum(1, dtype=np.int32) % size
    rows = np.concatenate([digits, answers[:, None]], 1)
    return Listed(rows, size, weight, name=f"reasoning-{answer}", slots={"reasoning": length, "answer": 1})


def _outer(margins: Doubles) -> Doubles:
    """The table `(V,) * L` of independent positions, `margins [L, V]`."""
    table = np.ones(())
    for margin in margins:
        table = table[..., None] * margin
    return table
