"""Expressions: the automaton over tokens accepts what Python's `re` matches, and nothing else."""

from __future__ import annotations

import itertools
import re

import attrs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from languages import expressions, language, rows, vocabularies
from outlines_core import Index
from outlines_core import Vocabulary as Words

from mdsample.constraints import expression
from mdsample.constraints.compile import from_expression, only_text, within_seconds
from mdsample.constraints.expression import STATES, byte_table
from mdsample.core.language import Automaton
from mdsample.core.tokens import Spelling
from mdsample.errors import PolicyError


@attrs.frozen
class Bytes:
    """A tokenizer of these tokens, then one that ends a text, then the mask."""

    texts: tuple[bytes, ...]
    strips: bool = False

    def spelling(self) -> Spelling:
        return Spelling((*self.texts, None, None), self.strips)

    @property
    def size(self) -> int:
        return len(self.texts) + 2

    @property
    def ends(self) -> frozenset[int]:
        return frozenset([len(self.texts)])

    @property
    def end_id(self) -> int:
        return len(self.texts)

    def encode(self, text: str) -> list[int]:
        """Letter by letter, if it can."""
        return [self.texts.index(letter.encode()) for letter in text]


def compiled(pattern: str, texts: list[bytes], pad: bool = False, strips: bool = False) -> Automaton | None:
    """The automaton; `None` if no text can be spelled, which it must say."""
    try:
        return from_expression(pattern, Bytes((*texts,), strips), pad=pad)  # type: ignore[arg-type]
    except PolicyError as error:
        assert "spell" in str(error)
    except ValueError as error:  # the only text, and a token is missing
        assert "not in tuple" in str(error)
    return None


def matches(pattern: str, written: bytes) -> bool:
    try:
        return re.fullmatch(pattern, written.decode(), re.ASCII) is not None
    except UnicodeDecodeError:
        return False


@settings(max_examples=60)
@given(pattern=expressions(), texts=vocabularies(5))
def test_it_accepts_what_python_matches(pattern: str, texts: list[bytes]) -> None:
    expected = {row for row in rows(len(texts), 4) if matches(pattern, b"".join(texts[token] for token in row))}
    automaton = compiled(pattern, texts)
    if automaton is None:
        # all of one text, whose letters are not all tokens, is left to the way in which the tokenizer writes it
        assert not expected or len({b"".join(texts[token] for token in row) for row in expected}) == 1
        return
    found = {row for row in language(automaton, 4)}
    if expression_has_one_text(pattern):
        assert found <= expected
    else:
        assert found == expected
    check_sound(automaton)


def expression_has_one_text(pattern: str) -> bool:
    return only_text(byte_table(pattern)) is not None


def check_sound(automaton: Automaton) -> None:
    """As `Automaton` says: sorted, one way only, every state on the way from the start to acceptance."""
    edges = list(zip(automaton.source.tolist(), automaton.symbol.tolist(), strict=True))
    assert edges == sorted(set(edges)) and all(symbol > 0 for _, symbol in edges)
    size = len(automaton.accepting)
    ways = np.zeros((size, size), bool)
    ways[automaton.source, automaton.target] = True
    reach = np.linalg.matrix_power(ways.astype(float) + np.eye(size), size) > 0
    assert reach[0].all() and reach[:, automaton.accepting].any(1).all()
    # every class can be told from the others, and has a token
    used = set(automaton.classes.tolist()) - {0}
    assert used == set(automaton.symbol.tolist())
    columns = [
        frozenset(zip(automaton.source[where].tolist(), automaton.target[where].tolist(), strict=True))
        for where in (automaton.symbol == symbol for symbol in used)
    ]
    assert len(set(columns)) == len(columns)


@settings(max_examples=20)
@given(pattern=expressions(), texts=vocabularies(2), strips=st.booleans())
def test_end_tokens_follow_and_a_first_space_gets_lost(pattern: str, texts: list[bytes], strips: bool) -> None:
    texts = [*texts, b" "]
    automaton = compiled(pattern, texts, pad=True, strips=strips)
    if automaton is None or expression_has_one_text(pattern):
        return
    end, found = len(texts), language(automaton, 4)
    for row in rows(len(texts) + 2, 4):
        text = row[: row.index(end)] if end in row else row
        rest = row[len(text) :]
        written = b"".join(texts[token] if token < end else b"\xff" for token in text)
        written = written.removeprefix(b" ") if strips else written
        assert (row in found) == (matches(pattern, written) and {*rest} <= {end}), (row, written)


@settings(max_examples=15)
@given(pattern=expressions(), texts=vocabularies(12))
def test_its_edges_are_those_of_the_library_over_tokens(pattern: str, texts: list[bytes]) -> None:
    texts = [*(bytes([byte]) for byte in range(1, 256)), *(text for text in texts if len(text) > 1)]
    automaton = compiled(pattern, texts)
    if automaton is None or expression_has_one_text(pattern):
        return
    # with an end of its own: without, the library drops ways from a state that accepts to one that does not
    unique = {text: number for number, text in enumerate(texts)}
    words = Words(len(texts) + 1, {**{text: [number] for text, number in unique.items()}, b"\x00": [len(texts)]})
    plain = pattern.replace(r"\d", "[0-9]").replace(r"\w", "[0-9A-Za-z_]")
    index = Index(rf"(?:{plain})\x00", words)
    over = index.get_final_states()
    transitions = index.get_transitions()
    ways = {
        (int(s), int(c)): int(t) for s, c, t in zip(automaton.source, automaton.symbol, automaton.target, strict=True)
    }
    seen, waiting = {(0, index.get_initial_state())}, [(0, index.get_initial_state())]
    while waiting:
        ours, theirs = waiting.pop()
        after = transitions[theirs]
        assert bool(automaton.accepting[ours]) == (after.get(len(texts)) in over)
        for token in unique.values():
            one, other = ways.get((ours, int(automaton.classes[token]))), after.get(token)
            assert one is None or other is not None
            if one is not None and other is not None and (one, other) not in seen:
                seen.add((one, other))
                waiting.append((one, other))


REFUSED = [
    ("^a", "anchor '^'"),
    ("a$", "anchor '$'"),
    (r"\bword\b", r"anchor '\\b'"),
    (r"a\Z", r"anchor '\\Z'"),
    ("(?=a)b", "looks around"),
    ("(?!a)b", "looks around"),
    ("(?<=a)b", "looks around"),
    ("(?<!a)b", "looks around"),
    (r"(a|b)\1", "refers back"),
    ("(?P<n>a)(?P=n)", "refers back"),
    ("(?>a+)b", "depends on the way"),
    ("a*+b", "depends on the way"),
    ("a{1,2}+b", "depends on the way"),
    ("(a)?(?(1)b|c)", "depends on the way"),
    ("(a", "not a regular expression: missing )"),
    ("[b-a]", "bad character range b-a"),
    ("[[a]]", "read in two ways"),
    ("[a--b]", "read in two ways"),
    (r"[^\s\S]", "allows no text"),
    ("\x00", "allows no text"),
    (r"\N{BULLET}", "valid in Python"),
    ("a{,2}", "valid in Python"),
    ("a{1, 2}", "without a plain count"),
    ("(?x)a b", "has the flag x"),
    ("(?ix:a)", "has the flag x"),
    ("(?i:a)[^h-j]", "write (?i) before the whole"),
    ("a" * 20_001, "20,000 are the most"),
    ("(" * 3000 + ")" * 3000, "nested too deeply|valid in Python"),
]


@pytest.mark.parametrize(("pattern", "said"), REFUSED, ids=[f"{pattern:.20}" for pattern, _ in REFUSED])
def test_what_cannot_be_is_refused_in_a_sentence(pattern: str, said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said) if "|" not in said else said) as refusal:
        byte_table(pattern)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.parametrize("pattern", [r"\^\$", "[$^]", r"[\]$]", "[]^]", r"\\+", r"\++", "a}+", r"[*+]+"])
def test_what_only_looks_like_an_anchor_is_none(pattern: str) -> None:
    table = byte_table(pattern)
    for text in ("^$", "^", "$", "]", "\\", "+", "a}}", "a", "aa"):
        assert spells(table, text) == (re.fullmatch(pattern, text) is not None), text


#: what one of the two may take for an operator, a class in a class, a space or another case
SIGNS = "&-~|[]:^ #,{}iaK_0\\"


@settings(max_examples=400)
@given(
    flags=st.sampled_from(["", "", "(?i)", "(?x)", "(?s)"]),
    parts=st.lists(
        st.one_of(
            st.text(SIGNS, min_size=1, max_size=4),
            st.tuples(st.sampled_from(["[", "[^"]), st.text(SIGNS, min_size=1, max_size=5))
            .map("".join)
            .map("{}]".format),
            st.tuples(st.sampled_from("ai"), st.text("{}1, ", min_size=3, max_size=6)).map("".join),
        ),
        min_size=1,
        max_size=2,
    ),
)
@example("", ["[^--a]"])
@example("", ["[^&&a]"])
@example("", ["[~~a]"])
@example("", ["[^[:alpha:]]"])
@example("", ["x[&&a]|a"])
@example("", ["a{1, 2}"])
@example("(?x)", ["[ a]"])
@example("(?i)", ["[^i]"])
@example("(?i)", ["[^a-z]"])
@example("(?i)", ["[^[]"])
@example("(?i)", ["[^^i]"])
@example("", [r"[&&\d\D]"])
def test_signs_mean_the_same_to_python_or_are_refused(flags: str, parts: list[str]) -> None:
    pattern = flags + "".join(parts)
    try:
        table = byte_table(pattern)
    except PolicyError:
        return
    python = re.compile(pattern)
    for text in TEXTS:
        found, expected = spells(table, text), python.fullmatch(text) is not None
        # (?i)i is i and I here, and [^i] under (?i) leaves out ı and İ too
        assert found <= expected if {*text} & {*"ıİ"} else found == expected, text


TEXTS = [
    "",
    *{letter for letter in SIGNS + "IAkıİé\n"},
    *map("".join, itertools.product("ai-&[]{ 0ıİ", repeat=2)),
    "a{1, 2}",
]


def spells(table: expression.Table, text: str) -> bool:
    state = 0
    for byte in text.encode():
        state = int(table.next[state, byte])
        if state == table.size:
            return False
    return bool(table.accepting[state])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a|b)*a(a|b){14}", "takes more than|states"),
        ("((a{100}){100}){100}", "takes more than|states"),
        ("[^a]{4000}", "takes more than|states"),
        ("(?:a{0,60000}){0,60000}", "takes more than|valid in Python"),
    ],
)
def test_a_nasty_expression_ends_soon_and_says_what_to_do(
    pattern: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expression, "SECONDS", 0.3)
    monkeypatch.setattr(expression, "_child", None)
    with pytest.raises(PolicyError, match=said):
        byte_table(pattern)
    assert byte_table("(ab)*").size == 2, "it is asked again after it came to an end"


def test_python_does_not_compile_what_it_only_has_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # a minute for these 20,000 characters
    pattern = "(?i)" + r"[\x00-\U0010ffff]" * 1_000

    def compiled(*_: object) -> None:
        raise AssertionError("it must not")

    monkeypatch.setattr(re, "compile", compiled)
    expression.check(pattern)


def test_the_largest_that_is_allowed() -> None:
    assert byte_table(f"a{{{STATES - 1}}}").size == STATES
    with pytest.raises(PolicyError, match="5,001 states, and 5,000 are the most"):
        byte_table(f"a{{{STATES}}}")


def test_many_expressions_have_a_limit_together() -> None:
    letters = Bytes((b"a", b"b", b"c"))
    with within_seconds(1e-9):
        from_expression("a|b", letters, pad=True)
        with pytest.raises(PolicyError, match="take too long to compile, all of them together"):
            from_expression("a|c", letters, pad=True)
    from_expression("a|c", letters, pad=True)
