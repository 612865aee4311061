"""Small worlds to try a policy in: canvases, toy models, joint distributions. Needs `mdsample[testing]`."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mdsample.core.canvas import Canvas
from mdsample.exact.joint import Joint
from mdsample.testing.toys import ScriptedDenoiser, Symbols

LETTERS = 6
#: texts that fit the slot `answer` of every canvas
TEXTS = ("a", "ab", "cab", "fff")


@st.composite
def canvases(draw: st.DrawFn, rows: int = 3, even: bool = False, least: int = 1) -> Canvas:
    """Rows of fixed text (literal mask and end tokens included) and two slots, ragged unless `even`.

    The slot `reasoning` has `least` positions or more; from 3 on the `TEXTS` fit it, too.
    """
    symbols = Symbols(LETTERS)
    fixed = st.lists(st.integers(0, symbols.size - 1), max_size=4)
    count = draw(st.integers(1, rows))
    slot_lengths = [(draw(st.integers(least, 7)), draw(st.integers(3, 4)))] * count
    if not even:
        slot_lengths = [(draw(st.integers(least, 7)), length) for _, length in slot_lengths]
    tokens: list[list[int]] = []
    slots: list[list[int]] = []
    for long, short in slot_lengths:
        pieces = (draw(fixed), [symbols.mask_id] * long, draw(fixed), [symbols.mask_id] * short, draw(fixed))
        tokens.append([t for piece in pieces for t in piece])
        numbers = (-1, 0, -1, 1, -1)
        slots.append([n for n, piece in zip(numbers, pieces, strict=True) for _ in piece])
    ids = draw(st.lists(st.integers(0, 99) | st.text(max_size=3), min_size=count, max_size=count, unique=True))
    return Canvas.of_rows(tokens, slots, ("reasoning", "answer"), symbols.mask_id, ids)


@st.composite
def denoisers(draw: st.DrawFn) -> ScriptedDenoiser:
    """Toy models, from indifferent to nearly certain."""
    return ScriptedDenoiser(Symbols(LETTERS), draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 1.0, 4.0, 30.0])))


@st.composite
def joints(draw: st.DrawFn) -> Joint:
    """Random joints of two to four positions over two or three tokens, from nearly certain to nearly independent."""
    length, size = draw(st.sampled_from([(2, 2), (3, 2), (2, 3), (4, 2), (3, 3)]))
    alpha = draw(st.sampled_from([0.1, 0.5, 2.0]))
    table = np.random.default_rng(draw(st.integers(0, 10**6))).dirichlet(np.full(size**length, alpha))
    return Joint(table.reshape((size,) * length))
