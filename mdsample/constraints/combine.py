"""Two languages at once."""

from __future__ import annotations

import numpy as np

from mdsample.constraints.table import Table
from mdsample.core.arrays import Ints
from mdsample.core.language import Automaton


def intersect(left: Automaton, right: Automaton) -> Automaton:
    """What is in both; an automaton without states if nothing is."""
    pairs = left.classes.astype(np.int64) * right.symbols + right.classes
    pairs[(left.classes == 0) | (right.classes == 0)] = 0
    used, classes = np.unique(np.append(0, pairs), return_inverse=True)
    of_left, of_right = np.divmod(used, right.symbols)
    first, second = after(left)[:, of_left], after(right)[:, of_right]
    numbers = {(0, 0): 0}
    rows: list[Ints] = []
    waiting = [(0, 0)] if left.states and right.states else []
    while waiting:
        a, b = waiting.pop(0)
        row = np.full(len(used), -1, np.int32)
        for column in np.flatnonzero((first[a] < left.states) & (second[b] < right.states)).tolist():
            pair = int(first[a, column]), int(second[b, column])
            if pair not in numbers:
                numbers[pair] = len(numbers)
                waiting.append(pair)
            row[column] = numbers[pair]
        rows.append(row)
    table = np.stack(rows) if rows else np.zeros((0, len(used)), np.int32)
    accepting = np.array([left.accepting[a] and right.accepting[b] for a, b in [*numbers][: len(rows)]], np.bool_)
    return Table(np.where(table < 0, np.int32(len(rows)), table), accepting).automaton(classes[1:].astype(np.int32))


def after(language: Automaton) -> Ints:
    """The state after each state over each class, `[S, C]` int32; S where there is none."""
    out = np.full((language.states, language.symbols), language.states, np.int32)
    out[language.source, language.symbol] = language.target
    return out
