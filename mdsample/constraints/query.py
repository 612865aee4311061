"""Query: what languages have in common, how long their texts are, and which slots can hold them."""

from __future__ import annotations

from collections.abc import Collection

import attrs
import numpy as np

from mdsample.constraints.table import Table, steps
from mdsample.core.arrays import Bools, Indices, Ints
from mdsample.core.language import Automaton
from mdsample.errors import PolicyError

#: states of two languages' intersection, and entries of its table
_STATES, _ENTRIES = 20_000, 1 << 25


def dense(automaton: Automaton) -> Table:
    """With a column for every class."""
    size, classes = len(automaton.accepting), int(automaton.classes.max(initial=0)) + 1
    after = np.full((size, classes), size, np.int32)
    after[automaton.source, automaton.symbol] = automaton.target
    return Table(after, automaton.accepting)


def only(allowed: Bools) -> Automaton:
    """Any rows of the tokens that are `allowed [V]`."""
    loop = np.zeros(int(allowed.any()), np.int32)
    return Automaton(allowed.astype(np.int32), loop, loop + 1, loop, np.ones(1, np.bool_))


def intersect(one: Automaton, other: Automaton) -> Automaton:
    """What both languages allow, of one tokenizer; `PolicyError` if that is nothing, or too large."""
    here, there = dense(one), dense(other)
    width = there.next.shape[1]
    pairs = np.where((one.classes > 0) & (other.classes > 0), one.classes * np.int64(width) + other.classes, 0)
    kinds, classes = np.unique(np.append(0, pairs), return_inverse=True)
    left, right = np.divmod(kinds, width)
    number = {0: 0}
    rows: list[Ints] = []
    frontier = np.zeros(1, np.int64)
    while len(frontier):
        states = np.divmod(frontier, there.size)
        after = here.next[states[0]][:, left], there.next[states[1]][:, right]
        dead = (after[0] == here.size) | (after[1] == there.size) | (kinds == 0)
        pair = np.where(dead, -1, after[0] * np.int64(there.size) + after[1])
        rows += [*pair]
        frontier = np.array([new for new in np.unique(pair).tolist() if new >= 0 and new not in number], np.int64)
        number.update(zip(frontier.tolist(), range(len(number), len(number) + len(frontier)), strict=True))
        if len(number) > _STATES or len(number) * len(kinds) > _ENTRIES:
            raise PolicyError(
                f"two constraints of one slot have more than {len(number):,} states together; make one of them simpler"
            )
    found, where = np.unique(np.stack(rows), return_inverse=True)
    size = len(number)
    after = np.array([number.get(pair, size) for pair in found.tolist()], np.int32)[where.reshape(size, len(kinds))]
    states = np.divmod(np.array([*number], np.int64), there.size)
    both = Table(after, here.accepting[states[0]] & there.accepting[states[1]]).trimmed()
    if not both.size:
        raise PolicyError("the constraints of one slot have no text in common; loosen one of them")
    return both.automaton(classes[1:].astype(np.int32))


def text_lengths(automaton: Automaton, ends: Collection[int] = ()) -> tuple[int, int | None]:
    """Tokens of the shortest and of the longest text, without `ends`; `None`: there is no longest.

    `PolicyError` if no text is without them.
    """
    ending = np.zeros(int(automaton.classes.max(initial=0)) + 1, np.bool_)
    ending[automaton.classes[[*ends]]] = True
    inside = ~ending[automaton.symbol]
    source, target = automaton.source[inside], automaton.target[inside]
    size = len(automaton.accepting)
    far = steps(source, target, np.arange(size) == 0)
    live = (far >= 0) & (steps(target, source, automaton.accepting) >= 0)
    if not live[0]:
        raise PolicyError("a language without a text that ends; loosen it")
    shortest = int(far[automaton.accepting & (far >= 0)].min())
    inner = live[source] & live[target]
    return shortest, longest(source[inner], target[inner], automaton.accepting & live)


def longest(source: Indices, target: Indices, accepting: Bools) -> int | None:
    """The most edges to a state of `accepting [S]` from one that no edge leads to; `None` if they lead in a circle."""
    size = len(accepting)
    after: list[list[int]] = [[] for _ in range(size)]
    waiting = [0] * size
    for pair in np.unique(source.astype(np.int64) * size + target).tolist():
        after[int(pair // size)].append(int(pair % size))
        waiting[pair % size] += 1
    far = [0] * size
    done: list[int] = [state for state in range(size) if not waiting[state]]
    for state in done:  # it grows meanwhile
        for other in after[state]:
            far[other] = max(far[other], far[state] + 1)
            waiting[other] -= 1
            if not waiting[other]:
                done.append(other)
    return max(far[state] for state in np.flatnonzero(accepting).tolist()) if len(done) == size else None


@attrs.frozen
class Facts:
    """A language over one tokenizer, in numbers."""

    #: of its automaton
    states: int
    classes: int
    #: tokens of the shortest and of the longest text, those that end it left out; `None`: there is no longest
    shortest: int
    longest: int | None


def facts(automaton: Automaton, ends: Collection[int] = ()) -> Facts:
    """Those of a language; errors as `text_lengths`. Of class 0, which may stand nowhere, nothing is counted."""
    return Facts(automaton.states, automaton.symbols - 1, *text_lengths(automaton, ends))


def fits(automaton: Automaton, length: int) -> bool:
    """Whether some row of exactly so many tokens is in the language, end tokens counted."""
    size = len(automaton.accepting)
    source, target = np.divmod(np.unique(automaton.source.astype(np.int64) * size + automaton.target), size)
    there = np.arange(size) == 0
    for _ in range(length):
        after = np.zeros(size, np.bool_)
        after[target[there[source]]] = True
        if np.array_equal(after, there):
            break
        there = after
    return bool((there & automaton.accepting).any())
