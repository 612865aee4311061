"""Compile: an expression, or a list of texts, as an automaton over the tokens of a tokenizer."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import numpy as np

from mdsample.constraints.expression import byte_table
from mdsample.constraints.query import longest, text_lengths
from mdsample.constraints.table import Table
from mdsample.constraints.vocabulary import Vocabulary, vocabulary
from mdsample.core.language import Automaton
from mdsample.core.tokens import Tokenizer
from mdsample.errors import PolicyError

#: expressions whose automata are kept
_KEPT = 64
#: seconds that are left for expressions here; `None`: no limit for all of them together
_left: ContextVar[list[float] | None] = ContextVar("_left", default=None)


@contextmanager
def within_seconds(seconds: float) -> Generator[None]:
    """All expressions that are compiled inside take no longer than this together, by the clock.

    Each has limits of its own (`byte_table`), but a schema may have many. The one that passes the limit is the last;
    the next one is a `PolicyError`. It holds for this thread or task.
    """
    token = _left.set([seconds])
    try:
        yield
    finally:
        _left.reset(token)


@contextmanager
def _counted() -> Generator[None]:
    """What is done inside takes from the seconds that are left; `PolicyError` if there are none."""
    left, began = _left.get(), time.perf_counter()
    if left is not None and left[0] <= 0:
        raise PolicyError("the expressions take too long to compile, all of them together; make them fewer or smaller")
    try:
        yield
    finally:
        if left is not None:
            left[0] -= time.perf_counter() - began


def from_expression(pattern: str, tokenizer: Tokenizer, *, pad: bool) -> Automaton:
    """All rows of tokens whose text is one of a regular expression's, however it is cut into tokens.

    The expression means the whole text; its syntax is what Python's `re` and Rust's `regex` share. `pad`: any tokens
    that end a text may follow it, to the end of the slot; without, or where there are none, it fills the slot. Of an
    expression with one text alone only the tokens that the tokenizer writes it with are allowed (`from_texts`).
    Raises `PolicyError` as `byte_table` does, and if the tokens cannot spell such a text.
    """
    with _counted():
        table = _bytes(pattern)
        text = only_text(table)
        if text is not None:
            return from_texts([text], tokenizer, turn=False, pad=pad)
        return _over_tokens(pattern, vocabulary(tokenizer), tokenizer.ends if pad else frozenset[int]())


def characters_of(pattern: str) -> tuple[frozenset[int], int | None]:
    """The bytes that texts of an expression have, and those of the longest; `None`: there is no longest.

    Raises `PolicyError` as `from_expression` does, without tokens.
    """
    with _counted():
        return _characters(pattern)


@lru_cache(_KEPT)
def _characters(pattern: str) -> tuple[frozenset[int], int | None]:
    table = _bytes(pattern)
    source, byte = np.nonzero(table.next < table.size)
    return frozenset(np.unique(byte).tolist()), longest(source, table.next[source, byte], table.accepting)


@lru_cache(_KEPT)
def lengths_of(language: Automaton) -> tuple[int, int | None]:
    """As `text_lengths`, within the seconds that are left."""
    with _counted():
        return text_lengths(language)


@lru_cache(_KEPT)
def _bytes(pattern: str) -> Table:
    return byte_table(pattern)


@lru_cache(_KEPT)
def _over_tokens(pattern: str, known: Vocabulary, ends: frozenset[int]) -> Automaton:
    try:
        return over_tokens(_bytes(pattern), known, ends)
    except PolicyError as error:
        raise PolicyError(f"the expression {pattern!r:.60} {error}") from error


def over_tokens(table: Table, known: Vocabulary, ends: frozenset[int]) -> Automaton:
    """An automaton over bytes (trimmed) as one over tokens, after whose texts `ends` may follow.

    Raises `PolicyError`, a sentence without its subject, if the tokens spell none of the texts, or it is too large.
    """
    over, symbol = known.over_tokens(_after_a_space(table) if known.strips else table)
    over = over.trimmed()
    if not over.size:
        raise PolicyError("has no text that the model's tokens spell; loosen it, or take a model with its characters")
    if ends:
        over, symbol = _padded(over, symbol, ends)
    return over.automaton(symbol)


def _after_a_space(table: Table) -> Table:
    """The texts, with or without a space before: one that stands first gets lost."""
    size = table.size
    after = np.where(table.next == size, size + 1, table.next)
    # a start of its own, the last state; then it changes numbers with the first
    first = after[:1].copy()
    first[0, ord(" ")] = 0
    swap = np.arange(size + 2)
    swap[[0, size]] = size, 0
    after, accepting = np.concatenate([after, first]), np.append(table.accepting, table.accepting[0])
    order = swap[:-1]
    return Table(swap[after[order]].astype(np.int32), accepting[order])


def _padded(table: Table, symbol: np.ndarray, ends: frozenset[int]) -> tuple[Table, np.ndarray]:
    """After acceptance any number of tokens that end a text: one more state, and one more symbol."""
    size, symbols = table.next.shape
    after = np.full((size + 1, symbols + 1), size + 1, np.int32)
    after[:size, :symbols] = np.where(table.next == size, size + 1, table.next)
    after[np.append(table.accepting, True), symbols] = size
    symbol = symbol.copy()
    symbol[list(ends)] = symbols
    return Table(after, np.append(table.accepting, True)), symbol


def only_text(table: Table) -> str | None:
    """The text of a language over bytes that has no other; the table is trimmed."""
    state, written = 0, bytearray()
    while len(written) < table.size:
        ways = np.flatnonzero(table.next[state] < table.size)
        if len(ways) != (not table.accepting[state]):
            return None
        if not len(ways):
            return written.decode()
        written.append(int(ways[0]))
        state = int(table.next[state, ways[0]])
    return None


def from_texts(texts: Sequence[str], tokenizer: Tokenizer, *, turn: bool, pad: bool = True) -> Automaton:
    """These texts, each with the tokens that the tokenizer writes it with.

    `pad`: the end token fills up the slot; with `turn` the end of a chat's turn may stand before it (`filled_up`),
    which is cut off where the slot ends. Raises `ValueError` for a text that the tokenizer cannot write.
    """
    if not texts:
        raise PolicyError("a list of texts needs at least one")
    tree = _Tree()
    end = tokenizer.end_id if pad else None
    padding = None if end is None else tree.state({}, accepts=True)
    if padding is not None and end is not None:
        tree.after[padding][end] = padding
    root = tree.state({}, accepts=False)
    endings = [(), tokenizer.turn_end] if turn and pad else [()]
    for text in texts:
        node = root
        for token in tokenizer.encode(text) if text else []:
            node = tree.step(node, token)
        for ending in endings:
            last = node
            tree.accepts[last] = True
            for token in ending:
                last = tree.step(last, token)
                tree.accepts[last] = True
            if padding is not None and end is not None:
                tree.after[last].setdefault(end, padding)
    return tree.automaton(root, tokenizer.size)


class _Tree:
    """States that are added one by one, those that come after a state later than it."""

    def __init__(self) -> None:
        self.after: list[dict[int, int]] = []
        self.accepts: list[bool] = []

    def state(self, after: dict[int, int], accepts: bool) -> int:
        """A new state."""
        self.after.append(after)
        self.accepts.append(accepts)
        return len(self.after) - 1

    def step(self, state: int, token: int) -> int:
        """The state after a token, new if there is none."""
        if token not in self.after[state]:
            self.after[state][token] = self.state({}, accepts=False)
        return self.after[state][token]

    def automaton(self, root: int, size: int) -> Automaton:
        """The smallest automaton with its texts, over `size` tokens; states that lead to themselves stand first."""
        same: dict[tuple[object, ...], int] = {}
        number = [*range(len(self.after))]
        for state in reversed(range(root, len(self.after))):
            self.after[state] = {token: number[after] for token, after in self.after[state].items()}
            seen = (self.accepts[state], *sorted(self.after[state].items()))
            number[state] = same.setdefault(seen, state)
        order = [number[root]]
        place = {number[root]: 0}
        for state in order:  # it grows meanwhile
            for after in self.after[state].values():
                if after not in place:
                    place[after] = len(order)
                    order.append(after)
        edges: dict[int, list[tuple[int, int]]] = {}
        for state in order:
            for token, after in self.after[state].items():
                edges.setdefault(token, []).append((place[state], place[after]))
        columns: dict[tuple[tuple[int, int], ...], int] = {}
        classes = np.zeros(size, np.int32)
        for token, pairs in edges.items():
            classes[token] = columns.setdefault((*pairs,), len(columns) + 1)
        listed = sorted((source, symbol, target) for pairs, symbol in columns.items() for source, target in pairs)
        source, symbol, target = np.array(listed, np.int32).reshape(-1, 3).T
        return Automaton(classes, source, symbol, target, np.array([self.accepts[state] for state in order]))
