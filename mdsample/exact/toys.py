"""The toy box: names for `mdsample audit --toy NAME`, sized so that an exact law takes milliseconds to seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mdsample.exact import puzzles
from mdsample.exact.chains import HiddenMarkov, MarkovChain
from mdsample.exact.toy import Toy


def _product() -> Toy:
    return puzzles.product(np.random.default_rng(1).dirichlet(np.full(3, 0.5), 6))


def _mixture() -> Toy:
    draw = np.random.default_rng(2)
    return puzzles.mixture([0.5, 0.3, 0.2], draw.dirichlet(np.full(3, 0.4), (3, 6)))


def _markov() -> Toy:
    draw = np.random.default_rng(3)
    return MarkovChain(np.ones(4), draw.dirichlet(np.full(4, 0.4), 4), 6)


def _hmm() -> Toy:
    # sticky states: neighbours tend to be in the same one, and each has its own favourite words
    draw = np.random.default_rng(4)
    return HiddenMarkov(np.ones(3), np.eye(3) * 6 + 1, draw.dirichlet(np.full(4, 0.3), 3), 6)


#: name -> factory
TOYS: dict[str, Callable[[], Toy]] = {
    # six independent positions: no policy errs
    "product": _product,
    # random pairwise couplings, three strengths
    "coupled-weak": lambda: puzzles.coupled(0.3, seed=5),
    "coupled": lambda: puzzles.coupled(1.0, seed=6),
    "coupled-strong": lambda: puzzles.coupled(3.0, seed=7),
    # a hidden topic, then independent words
    "mixture": _mixture,
    # language-like: each token depends on the one before, or on a hidden state that persists
    "markov": _markov,
    "hmm": _hmm,
    # all tokens equal: every parallel step errs
    "same-word": lambda: puzzles.same_word(4, 4),
    # eight clues leave eight cells and three solutions
    "sudoku4": lambda: puzzles.sudoku4("01..23.1.0...2.0"),
    # five fair bits and four tests of three of them
    "nae-sat": lambda: puzzles.nae_sat(5, 4, seed=1),
    # four digits and the largest of them; four digits and their sum modulo 3
    "reasoning": lambda: puzzles.reasoning(answer="largest"),
    "reasoning-sum": lambda: puzzles.reasoning(answer="sum"),
}
