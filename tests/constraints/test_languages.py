"""Lists of texts, intersections, lengths; and the bytes that tokens are written with."""

from __future__ import annotations

import itertools
from functools import cache

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from languages import LETTERS, accepts, expressions, language, rows
from tokenizers import Tokenizer as Engine
from tokenizers import decoders
from tokenizers.models import BPE

import mdsample
from mdsample.constraints.compile import from_expression, from_texts
from mdsample.constraints.query import fits, intersect, only, text_lengths
from mdsample.constraints.vocabulary import Vocabulary
from mdsample.core.language import Automaton
from mdsample.core.tokens import Tokenizer, filled_up, spelling
from mdsample.errors import ModelError, PolicyError
from mdsample.exact.toy import ToyTokenizer
from mdsample.models.text.tokenizer import FileTokenizer
from mdsample.testing.toys import Symbols


@attrs.frozen
class Chatting(Symbols):
    """A turn ends with the last letter, then a token of its own (the mask's neighbour is the end)."""

    @property
    def turn_end(self) -> tuple[int, ...]:
        return (self.letters - 1, self.letters - 2)

    @property
    def ends(self) -> frozenset[int]:
        return frozenset([self.letters, self.letters - 2])


words = st.lists(st.text("ab", max_size=3), min_size=1, max_size=4)


@settings(max_examples=40)
@given(texts=words, turn=st.booleans(), pad=st.booleans(), length=st.integers(0, 4))
def test_texts_fill_a_slot_as_a_given_text_does(texts: list[str], turn: bool, pad: bool, length: int) -> None:
    tokenizer = Chatting(4)
    automaton = from_texts(texts, tokenizer, turn=turn, pad=pad)
    expected = {
        (*filled_up(tokenizer.encode(text), length if pad else 0, tokenizer, turn=way),)
        for text in texts
        for way in ((False, True) if turn and pad else (False,))
    }
    expected = {row for row in expected if len(row) == length}
    assert {row for row in language(automaton, length) if len(row) == length} == expected
    assert fits(automaton, length) == bool(expected)


@settings(max_examples=25)
@given(one=expressions(), other=expressions(), pads=st.tuples(st.booleans(), st.booleans()))
def test_an_intersection_is_what_both_allow(one: str, other: str, pads: tuple[bool, bool]) -> None:
    tokenizer = Letters()
    automata = [from_expression(pattern, tokenizer, pad=pad) for pattern, pad in zip((one, other), pads, strict=True)]
    expected = set.intersection(*(language(automaton, 3) for automaton in automata))
    try:
        both = intersect(*automata)
    except PolicyError as error:
        assert "no text in common" in str(error) and not expected
        return
    assert language(both, 3) == expected
    for length in range(4):
        assert fits(both, length) == any(len(row) == length for row in expected)
    check_lengths(both, tokenizer)


def check_lengths(automaton: Automaton, tokenizer: Tokenizer) -> None:
    """Against all rows as long as the automaton has states."""
    found = {len(row) for row in language(automaton, 3) if not {*row} & tokenizer.ends}
    try:
        shortest, longest = text_lengths(automaton, tokenizer.ends)
    except PolicyError:
        assert not found
        return
    assert (shortest in found) if shortest <= 3 else not found
    assert longest is None or not found or max(found) <= longest
    assert longest is None or longest > 3 or longest in found


@attrs.frozen
class Letters(Symbols):
    """The letters of the tests' expressions, one token each."""

    letters: int = len(LETTERS)

    def encode(self, text: str) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def decode(self, tokens: object) -> str:
        return "".join(LETTERS[token] for token in tokens if token < self.letters)  # type: ignore[attr-defined]


@settings(max_examples=15)
@given(st.sets(st.integers(0, 5)))
def test_a_set_of_tokens_as_a_language(allowed: set[int]) -> None:
    automaton = only(np.isin(np.arange(6), [*allowed]))
    assert language(automaton, 3) == {row for row in rows(6, 3) if allowed.issuperset(row)}
    assert text_lengths(automaton) == (0, None if allowed else 0)


def test_lengths_that_can_be_told() -> None:
    tokenizer = ToyTokenizer(10)
    for pattern, expected in {
        "[0-9]{2,5}": (2, 5),
        "7": (1, 1),
        "1*": (0, None),
        "(12)?3": (1, 3),
        "[0-9]{300}": (300, 300),
    }.items():
        automaton = from_expression(pattern, tokenizer, pad=True)
        assert text_lengths(automaton, tokenizer.ends) == expected
        assert fits(automaton, expected[0]) and not (expected[0] and fits(automaton, expected[0] - 1))
    assert not fits(from_expression("[0-9]{300}", tokenizer, pad=True), 301), "a toy has no end token"
    with pytest.raises(PolicyError, match="tokens spell"):
        from_expression("[a-z]+", tokenizer, pad=True)


def test_one_text_is_written_one_way() -> None:
    tokenizer = embedded("tiny-gsm")
    automaton = from_expression("She has 12 apples", tokenizer, pad=True)
    whole = filled_up(tokenizer.encode("She has 12 apples"), 24, tokenizer, turn=False)
    assert accepts(automaton, whole)
    assert (
        int(automaton.accepting.sum()) == 2 and len(automaton.source) == len(tokenizer.encode("She has 12 apples")) + 2
    )
    # while of two texts any way is allowed
    either = from_expression("She has 1[23] apples", tokenizer, pad=True)
    assert accepts(either, whole) and len(either.source) > 2 * len(automaton.source)


@cache
def embedded(name: str) -> Tokenizer:
    return mdsample.load(name, backend="reference").tokenizer


@cache
def pieces(tokenizer: Tokenizer) -> list[int]:
    return [token for token, text in enumerate(spelling(tokenizer).texts) if text]


@pytest.mark.parametrize("name", ["tiny-gsm", "tiny-sudoku"])
@settings(max_examples=25)
@given(data=st.data())
def test_bytes_of_a_byte_level_tokenizer(name: str, data: st.DataObject) -> None:
    tokenizer = embedded(name)
    spelled = spelling(tokenizer)
    row = data.draw(st.lists(st.sampled_from(pieces(tokenizer)), max_size=8))
    written = b"".join(spelled.texts[token] or b"" for token in row)
    assert tokenizer.decode(row) == written.decode(errors="replace")
    assert all(spelled.texts[token] is None for token in (tokenizer.mask_id, *tokenizer.ends))
    assert b"".join(spelled.texts[token] or b"" for token in tokenizer.encode("é 😀\n1")) == "é 😀\n1".encode()


@cache
def sentencepiece(*, strip: bool) -> FileTokenizer:
    """With byte fallback, as LLaMA 2's (with `strip`) and Gemma's."""
    words = ["<mask>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "a", "ab", "▁é", "é", "b"]
    engine = Engine(BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    steps: list[object] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        steps.append(decoders.Strip(" ", 1, 0))
    engine.decoder = decoders.Sequence(steps)  # type: ignore[arg-type]
    return FileTokenizer(engine, mask_id=0, end_id=1)


@pytest.mark.parametrize("strip", [False, True])
@settings(max_examples=25)
@given(data=st.data())
def test_bytes_of_sentencepiece(strip: bool, data: st.DataObject) -> None:
    tokenizer = sentencepiece(strip=strip)
    spelled = spelling(tokenizer)
    assert spelled.strips == strip
    row = data.draw(st.lists(st.sampled_from(pieces(tokenizer)), max_size=6))
    written = b"".join(spelled.texts[token] or b"" for token in row)
    try:
        text = written.decode()
    except UnicodeDecodeError:
        return
    assert tokenizer.decode(row) == (text.removeprefix(" ") if strip else text)


def test_an_expression_is_of_what_a_slot_decodes_to() -> None:
    for strip in (False, True):
        tokenizer = sentencepiece(strip=strip)
        automaton = from_expression("[abé]{1,2}", tokenizer, pad=True)
        found = language(automaton, 2)
        some = [token for token in pieces(tokenizer) if token > 256 or token in (2 + 0x20, 2 + 0xC3, 2 + 0xA9)]
        for row in itertools.product(some, repeat=2):
            text = tokenizer.decode(row)
            assert (row in found) == (0 < len(text) <= 2 and not text.strip("abé")), text


def test_decoders_that_join_in_other_ways_are_refused() -> None:
    for decoder in (decoders.WordPiece(), decoders.CTC(), None):
        engine = Engine(BPE({"m": 0, "a": 1}, []))
        if decoder is not None:
            engine.decoder = decoder  # type: ignore[assignment]
        with pytest.raises(ModelError, match="token by token"):
            spelling(FileTokenizer(engine, mask_id=0))


@pytest.mark.parametrize("tokenizer", [ToyTokenizer(70), Symbols(5)])
def test_tokenizers_that_decode_only(tokenizer: Tokenizer) -> None:
    spelled = spelling(tokenizer)
    for token in range(tokenizer.size):
        assert (spelled.texts[token] or b"").decode() == tokenizer.decode([token])


@settings(max_examples=40)
@given(texts=st.lists(st.binary(min_size=1, max_size=4), max_size=12))
def test_a_tree_spells_its_tokens(texts: list[bytes]) -> None:
    tree = Vocabulary.of([None, *texts])
    written = {0: b""}
    for above, byte in tree.levels:
        for node, letter in zip(above.tolist(), byte.tolist(), strict=True):
            written[len(written)] = written[node] + bytes([letter])
    assert len({*written.values()}) == len(written)
    assert tree.ending[0] == -1 and [written[node] for node in tree.ending[1:].tolist()] == texts
