"""Languages for tests: random expressions and vocabularies, and which rows of tokens an automaton accepts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from mdsample.core.language import Automaton

#: of one to four bytes
LETTERS = "ab1é€😀"


def accepts(automaton: Automaton, tokens: Sequence[int]) -> bool:
    """Whether a row of tokens is in the language."""
    ways = {
        (int(source), int(symbol)): int(target)
        for source, symbol, target in zip(automaton.source, automaton.symbol, automaton.target, strict=True)
    }
    return accepted(automaton, ways, tokens)


def accepted(automaton: Automaton, ways: dict[tuple[int, int], int], tokens: Sequence[int]) -> bool:
    state = 0
    for token in tokens:
        state = ways.get((state, int(automaton.classes[token])), -1)
        if state < 0:
            return False
    return bool(automaton.accepting[state])


def language(automaton: Automaton, most: int) -> set[tuple[int, ...]]:
    """All rows of at most so many tokens that it accepts."""
    ways = {
        (int(source), int(symbol)): int(target)
        for source, symbol, target in zip(automaton.source, automaton.symbol, automaton.target, strict=True)
    }
    return {row for row in rows(len(automaton.classes), most) if accepted(automaton, ways, row)}


def rows(size: int, most: int) -> Iterator[tuple[int, ...]]:
    for length in range(most + 1):
        yield from itertools.product(range(size), repeat=length)


def expressions() -> st.SearchStrategy[str]:
    """Expressions over a few letters, that Python reads."""
    letters = st.sampled_from(LETTERS)
    atoms = st.one_of(
        letters,
        letters,
        st.just("."),
        st.sets(letters, min_size=1, max_size=3).map(lambda some: f"[{''.join(sorted(some))}]"),
        st.sets(letters, min_size=1, max_size=3).map(lambda some: f"[^{''.join(sorted(some))}]"),
        st.sampled_from([r"\d", r"\w", r"\D", "[a-z]", "", "[0-é]"]),
    )
    counts = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,2}", "{2,}", "*?", "??"])

    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        group = inner.map(lambda text: f"(?:{text})")
        return st.one_of(
            st.lists(inner, min_size=2, max_size=3).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda ways: f"(?:{'|'.join(ways)})"),
            st.tuples(group, counts).map("".join),
            inner.map(lambda text: f"({text})"),
        )

    return st.recursive(atoms, grown, max_leaves=8)


def vocabularies(most: int = 6) -> st.SearchStrategy[list[bytes]]:
    """The bytes of a few tokens: letters, pieces of letters, several of them."""
    whole = st.text(LETTERS, min_size=1, max_size=3).map(str.encode)
    cut = st.tuples(whole, st.integers(0, 3), st.integers(1, 6)).map(lambda drawn: drawn[0][drawn[1] :][: drawn[2]])
    return st.lists(st.one_of(whole, cut).filter(bool), min_size=1, max_size=most)
