"""Templates: text to canvas and back, and what is wrong with a template said in a sentence."""

from __future__ import annotations

import re

import pytest
from checkpoints import END, MASK, START, tokenizer_json
from hypothesis import example, given
from hypothesis import strategies as st
from templates import LETTERS, NAME, WORD, templates
from tokenizers import Tokenizer as Engine

from mdsample.core.template import Field, Slot, Template, Text
from mdsample.errors import TemplateError
from mdsample.models.text.tokenizer import FileTokenizer
from mdsample.sampling.result import read


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


@pytest.mark.slow
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


#: a tokenizer as checkpoints have it, and texts that a careless one would take for something else
BYTES = FileTokenizer(Engine.from_str(tokenizer_json()), mask_id=2, end_id=1, start_id=0)
SPECIAL = st.sampled_from([START, END, MASK])
TRICKY = st.sampled_from(
    [MASK, END, START, "<|mdm_", "mask|>", "{", "}", "{{answer:4}}", "{prompt}", "Step 1:", "\n", " "]
)
ANY = st.lists(TRICKY | st.text(max_size=6), max_size=4).map("".join)


@st.composite
def filled(draw: st.DrawFn) -> tuple[Template, dict[str, str], dict[str, str]]:
    """A template with special tokens and literal braces in its text, texts of its fields, and what some slots hold."""
    pieces: list[Text | Field | Slot] = []
    fields: dict[str, str] = {}
    slots: dict[str, str] = {}
    names = draw(st.lists(NAME, min_size=1, max_size=6, unique=True))
    first = draw(st.sampled_from(names))
    for name in names:
        between = "".join(draw(st.lists(SPECIAL | TRICKY | st.text(max_size=6), max_size=3)))
        pieces += [Text(between)] if between else []
        text = draw(ANY)
        if name != first and draw(st.booleans()):
            fields[name] = text
            pieces.append(Field(name))
            continue
        pieces.append(Slot(name, max(1, len(BYTES.encode(text)) + draw(st.integers(0, 3)))))
        if draw(st.booleans()):
            slots[name] = text
    return Template(tuple(pieces)), fields, slots


@pytest.mark.slow
@given(filled())
@example((Template.parse("<|mdm_{a}{b:16}"), {"a": "mask|>"}, {"b": END}))
@example((Template.parse(f"{{{{{MASK}}}}}{{a:1}}{START}{{b:1}}{{c}}"), {"c": MASK + "{a:1}"}, {}))
def test_any_text_goes_to_the_canvas_and_back(case: tuple[Template, dict[str, str], dict[str, str]]) -> None:
    template, fields, brought = case
    assert Template.parse(str(template)) == template
    canvas = template.canvas(BYTES, [fields], given=[brought])
    tokens, blank, slot = canvas.tokens[0], canvas.blank[0], canvas.slot[0]
    lengths = {piece.name: piece.length for piece in template.pieces if isinstance(piece, Slot)}
    assert [int((slot == number).sum()) for number in range(len(canvas.names))] == [*lengths.values()]
    assert int(blank.sum()) == sum(length for name, length in lengths.items() if name not in brought)

    text, slots = read(BYTES, tokens, blank, slot, canvas.names)
    assert slots == {name: brought.get(name, "").strip() for name in lengths}
    said = [
        "".join(part for part in _parts(piece.text) if part not in BYTES.special)
        if isinstance(piece, Text)
        else (fields | brought).get(piece.name, "")
        for piece in template.pieces
    ]
    begin = next(number for number, piece in enumerate(template.pieces) if isinstance(piece, Slot))
    assert BYTES.decode(tokens[: int((slot >= 0).argmax())].tolist()) == "".join(said[:begin])
    assert text == "".join(said[begin:]).strip()
    # special tokens are those that the template's own text names, and one to start with
    named = [
        BYTES.special_id(part)
        for piece in template.pieces
        if isinstance(piece, Text)
        for part in _parts(piece.text)
        if part in BYTES.special
    ]
    fixed = [token for token in tokens[slot < 0].tolist() if token in (0, 1, 2)]
    assert fixed in (named, [0, *named])


def _parts(text: str) -> list[str]:
    """Special tokens, and what is between them."""
    return re.split("(" + "|".join(map(re.escape, BYTES.special)) + ")", text)


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
        (
            "{a b:3}",
            "'a b' is no name (a to z, _, digits and -, the first no digit); write {{ for a literal brace"
            "\n  {a b:3}\n  ^",
        ),
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
