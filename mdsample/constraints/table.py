"""Table: a deterministic automaton with a column for every symbol; trimmed, made minimal, written as transitions.

S = states, K = symbols. State 0 is the start. Where an automaton has no transition, the table says S, the dead state.
"""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Indices, Ints
from mdsample.core.language import Automaton

#: rounds of refinement; what needs more is left as it is, which is as right, only larger
_ROUNDS = 200


@attrs.frozen(eq=False)
class Table:
    """A deterministic automaton over K symbols."""

    #: the state after every state over every symbol, [S, K]; S where there is none
    next: Ints
    #: [S]
    accepting: Bools

    @property
    def size(self) -> int:
        """Number of states, the dead one left out."""
        return len(self.accepting)

    def trimmed(self) -> Table:
        """Without states that cannot be reached, and those from which acceptance cannot be; none if it is empty."""
        source, symbol = np.nonzero(self.next < self.size)
        target = self.next[source, symbol]
        start = np.arange(self.size) == 0
        live = (steps(source, target, start) >= 0) & (steps(target, source, self.accepting) >= 0)
        if not live[:1].any():
            return Table(np.zeros((0, self.next.shape[1]), np.int32), np.zeros(0, np.bool_))
        return self._renumbered(np.append(np.where(live, np.cumsum(live) - 1, live.sum()), live.sum()), live)

    def _renumbered(self, number: Indices, kept: Bools) -> Table:
        """The kept states, under the numbers that `number [S + 1]` gives to all."""
        return Table(number[self.next[kept]].astype(np.int32), self.accepting[kept])

    def minimal(self) -> Table:
        """The smallest automaton with this language, of a trimmed one; the start stays state 0."""
        block = self._blocks()
        if block is None:
            return self
        _, first = np.unique(block[:-1], return_index=True)
        kept = np.zeros(self.size, np.bool_)
        kept[first] = True
        # numbered in the order of the states that are kept, so that the start stays the first
        number = np.full(block.max() + 1, len(first), np.int32)
        number[block[np.flatnonzero(kept)]] = np.arange(len(first))
        return self._renumbered(number[block], kept)

    def _blocks(self) -> Ints | None:
        """The block of states with one language that each state is in, [S + 1]; `None` if that takes too long.

        Moore's refinement, from how far it is to acceptance: along counted repetitions that alone tells all apart.
        """
        source, symbol = np.nonzero(self.next < self.size)
        far = steps(self.next[source, symbol], source, self.accepting)
        block = np.unique(np.append(far, -1), return_inverse=True)[1].astype(np.int32)
        count = int(block.max()) + 1
        columns = self.merged()[0].next
        for _ in range(_ROUNDS):
            after = np.concatenate([block[:-1, None], block[columns]], 1).astype(np.int32)
            numbers: dict[bytes, int] = {}
            found = [numbers.setdefault(row.tobytes(), len(numbers)) for row in after]
            if len(numbers) + 1 == count:
                return block
            count = len(numbers) + 1
            block = np.array([*found, len(numbers)], np.int32)
        return None

    def merged(self) -> tuple[Table, Ints]:
        """One column for all symbols with the same column, and column 0 for those that lead nowhere.

        Also the new column of every symbol, `[K]`.
        """
        nowhere = np.full((self.size, 1), self.size, np.int32)
        columns: dict[bytes, int] = {nowhere.T.tobytes(): 0}
        rows = np.ascontiguousarray(self.next.T)
        number = np.array([columns.setdefault(row.tobytes(), len(columns)) for row in rows], np.int32).reshape(-1)
        kept = [np.flatnonzero(number == column)[0] for column in range(1, len(columns))]
        return Table(np.concatenate([nowhere, self.next[:, kept]], 1), self.accepting), number

    def automaton(self, classes: Ints) -> Automaton:
        """Over tokens: `classes [V]` says which column is a token's."""
        small = self.trimmed().minimal()
        small, number = small.merged()
        source, symbol = np.nonzero(small.next < small.size)
        target = small.next[source, symbol]
        return Automaton(
            number[classes].astype(np.int32),
            source.astype(np.int32),
            symbol.astype(np.int32),
            target.astype(np.int32),
            small.accepting,
        )


def steps(source: Indices, target: Indices, start: Bools) -> Ints:
    """The fewest edges, of those from `source [E]` to `target [E]`, from `start [S]` to every state; −1: no way."""
    size = len(start)
    after: list[list[int]] = [[] for _ in range(size)]
    for pair in np.unique(source.astype(np.int64) * size + target).tolist():
        after[int(pair // size)].append(int(pair % size))
    far = [0 if begins else -1 for begins in start.tolist()]
    reached: list[int] = np.flatnonzero(start).tolist()
    for state in reached:  # it grows meanwhile
        for other in after[state]:
            if far[other] < 0:
                far[other] = far[state] + 1
                reached.append(other)
    return np.array(far, np.int32)
