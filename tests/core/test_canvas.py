"""Canvases and rows as people see them: what a picture says is what is there."""

from __future__ import annotations

import html
import re

import attrs
import pytest
from rich.pretty import pretty_repr
from templates import LETTERS

import mdsample
from mdsample.core.html import BLANK, END
from mdsample.core.template import Template
from mdsample.testing import ScriptedDenoiser

MODEL = ScriptedDenoiser(LETTERS, max_length=200)
LAYOUT = Template.parse("ab{prompt}{reasoning:6}c{answer:3}")


def text_of(page: str) -> str:
    """What a page says, without its style."""
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", "", page, flags=re.DOTALL))


def test_a_canvas_names_its_slots_from_left_to_right() -> None:
    canvas = LAYOUT.canvas(LETTERS, [{"prompt": "d"}, {"prompt": "ef"}])
    assert repr(canvas) == "Canvas(2 rows of up to 14 tokens, slots: reasoning, answer)"
    assert pretty_repr(canvas) == "Canvas(rows=2, tokens=14, slots=('reasoning', 'answer'))"
    chips = f"text3 tokensreasoning{BLANK} × 6text1 tokenanswer{BLANK} × 3"
    assert text_of(canvas._repr_html_()) == f"row0{chips}row1{chips.replace('3 tokens', '4 tokens', 1)}"
    assert repr(canvas.take([])) == "Canvas(0 rows of up to 0 tokens, slots: reasoning, answer)"


@pytest.mark.parametrize(("rows", "told"), [(10, ""), (11, "… and 1 more rows")])
def test_a_long_canvas_says_how_much_is_not_shown(rows: int, told: str) -> None:
    shown = text_of(LAYOUT.canvas(LETTERS, [{"prompt": "d"}] * rows)._repr_html_())
    assert shown.count("row") - told.count("row") == 10 and shown.endswith(told)


@pytest.mark.parametrize("seed", range(3))
def test_a_rows_picture_is_its_text(seed: int) -> None:
    policy = "whole+random+top(2)+temperature(2)+budget(3)"
    row = mdsample.sample(MODEL, "d", template=LAYOUT, policy=policy, seed=seed)
    pieces = [END if token in LETTERS.ends else LETTERS.decode([token]) for token in row.tokens.tolist()]
    said = text_of(row._repr_html_())
    assert "".join(pieces) in said
    assert f"{row.nfe} forward passes" in said and f"error bound {row.error_bound:.2g} nats" in said
    assert " · no error bound" in text_of(attrs.evolve(row, error_bound=float("inf"))._repr_html_())
    assert said.endswith(f"step 1  {row.steps} \u2003{END} end \u2003{BLANK} left blank \u2003grey: given")
    for cell, token in zip(row.cells(), row.tokens.tolist(), strict=True):
        assert (cell.text == END) == cell.look.endswith(" e") == (token in LETTERS.ends)


def test_samples_say_what_they_took() -> None:
    samples = mdsample.sample(MODEL, ["d", "e"], template=LAYOUT, policy="med")
    shown = pretty_repr(attrs.evolve(samples, seconds=1.5))
    assert "seconds=1.5" in shown and "id=0" in shown and "policy=" in shown
    assert "3.00 GiB at most" in attrs.evolve(samples, peak_memory=3 << 30)._repr_html_()


def test_a_blank_belongs_to_a_slot() -> None:
    canvas = LAYOUT.canvas(LETTERS, [{"prompt": "d"}])
    with pytest.raises(ValueError, match=r"^a blank must belong to a slot$"):
        attrs.evolve(canvas, slot=canvas.slot * 0 - 1)
