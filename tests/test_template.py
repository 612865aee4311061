"""Templates: text to canvas and back, and what is wrong with a template said in a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsample.result import read
from mdsample.template import Field, Slot, Template, TemplateError, Text
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


@given(templates(st.text(max_size=8)))
def test_text_parses_back(template: Template) -> None:
    assert Template.parse(str(template)) == template


@given(st.text(max_size=40) | st.text("{}:ab1 ", max_size=30))
def test_any_text_parses_or_is_refused_in_words(text: str) -> None:
    try:
        template = Template.parse(text)
    except TemplateError as fault:
        assert str(fault)
    else:
        assert Template.parse(str(template)) == template


@given(templates(WORD), st.data())
def test_a_canvas_holds_the_texts_and_the_slots(template: Template, data: st.DataObject) -> None:
    texts = {name: data.draw(WORD) for name in template.fields}
    canvas = template.canvas(LETTERS, [texts], ["x"])
    expected = "".join(
        p.text if isinstance(p, Text) else texts[p.name] if isinstance(p, Field) else "_" * p.length
        for p in template.pieces
    )
    written = ["_" if b else LETTERS.decode([t]) for t, b in zip(canvas.tokens[0], canvas.blank[0], strict=True)]
    assert "".join(written) == expected
    assert canvas.names == template.slots
    for piece in template.pieces:
        if isinstance(piece, Slot):
            assert canvas.slot_length(piece.name) == piece.length


@given(templates(WORD), st.data())
def test_what_is_written_into_slots_is_read_back(template: Template, data: st.DataObject) -> None:
    canvas = template.canvas(LETTERS, [{name: "" for name in template.fields}])
    tokens, contents = canvas.tokens[0].copy(), {}
    for number, name in enumerate(template.slots):
        places = (canvas.slot[0] == number).nonzero()[0]
        contents[name] = data.draw(st.text("abcdef", max_size=len(places)))
        written = LETTERS.encode(contents[name])
        tokens[places] = written + [LETTERS.letters] * (len(places) - len(written))
    _, slots = read(LETTERS, tokens, canvas.blank[0] & False, canvas.slot[0], canvas.names)
    assert slots == contents


def test_special_tokens_mean_tokens_in_the_template_and_text_in_a_field() -> None:
    template = Template.parse("a<mask>{prompt}{answer:1}")
    row = template.row(LETTERS, {"prompt": "b"})
    tokens, slot = row.tokens, row.slot
    assert tokens == [0, LETTERS.mask_id, 1, LETTERS.mask_id]
    assert slot == [-1, -1, -1, 0]
    with pytest.raises(ValueError, match="only the 6 letters"):  # not taken for the token
        template.row(LETTERS, {"prompt": "<mask>"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no slot", "a template needs at least one slot, such as {answer:16}"),
        ("{a:3}{a:4}", "there are two slots called 'a'; give each a name of its own"),
        ("{a}{a:4}", "'a' is both a slot and a field; rename one"),
        ("x {a:0}", "slot 'a' needs a length of 1 or more, as in {a:16}\n  x {a:0}\n    ^"),
        ("x {a:many}", "slot 'a' needs a length of 1 or more, as in {a:16}\n  x {a:many}\n    ^"),
        ("one\ntwo } {a:1}", "a single '}'; write '}}' for a literal brace\n  two } {a:1}\n      ^"),
        ("{a b:3}", "'a b' is not a name (letters, digits, - and _); write {{ for a literal brace\n  {a b:3}\n  ^"),
    ],
)
def test_a_wrong_template_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as fault:
        Template.parse(text)
    assert str(fault.value) == message


def test_a_row_that_does_not_fit_is_refused() -> None:
    template = Template.parse("{prompt}{answer:2}")
    with pytest.raises(TemplateError, match="asks for 'prompt', which the row lacks; it has: none"):
        template.canvas(LETTERS, [{}])
    with pytest.raises(TemplateError, match="'answer' is a slot, which the model fills; fields here: prompt"):
        template.canvas(LETTERS, [{"prompt": "a", "answer": "b"}])
