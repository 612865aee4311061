"""What tests of templates share: an alphabet, texts of it, random templates."""

from __future__ import annotations

from hypothesis import strategies as st

from mdsample.core.template import Field, Slot, Template, Text
from mdsample.testing import Symbols

LETTERS = Symbols(6)
WORD = st.text("abcdef", max_size=6)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True)


@st.composite
def templates(draw: st.DrawFn, text: st.SearchStrategy[str]) -> Template:
    names = draw(st.lists(NAME, min_size=1, max_size=5, unique=True))
    slots = draw(st.integers(1, len(names)))
    pieces: list[Text | Field | Slot] = [
        Slot(name, draw(st.integers(1, 9))) if i < slots else Field(name) for i, name in enumerate(names)
    ]
    pieces = draw(st.permutations(pieces))
    mixed: list[Text | Field | Slot] = []
    for piece in pieces:
        between = draw(text)
        mixed += [Text(between), piece] if between else [piece]
    return Template(tuple(mixed))
