"""Random languages, for tests of what is done with one."""

from __future__ import annotations

import numpy as np

from mdsample.core.language import Automaton


def random_language(rng: np.random.Generator, size: int, length: int, states: int = 4, symbols: int = 5) -> Automaton:
    """An automaton over `size` tokens that some text of `length` tokens is in.

    It has at most so many states and classes, class 0 included. Some tokens may stand nowhere.
    """
    symbols = min(symbols, size + 1)
    classes = rng.integers(0, symbols, size).astype(np.int32)
    classes[rng.permutation(size)[: symbols - 1]] = np.arange(1, symbols)
    table = np.where(rng.random((states, symbols)) < 0.5, rng.integers(0, states, (states, symbols)), -1)
    # a way on from everywhere
    table[np.arange(states), rng.integers(1, symbols, states)] = rng.integers(0, states, states)
    table[:, 0] = -1
    at = 0
    for _ in range(length):
        onward: list[int] = [state for state in table[at].tolist() if state >= 0]
        at = int(rng.choice(onward))
    accepting = rng.random(states) < 0.3
    accepting[at] = True
    source, symbol = (index.astype(np.int32) for index in np.nonzero(table >= 0))
    return Automaton(classes, source, symbol, table[source, symbol].astype(np.int32), accepting)
