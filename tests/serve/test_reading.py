"""Reading: what is told of a row only grows, and is the row's text in the end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_serve.json_object import JSON_OBJECT
from mdsample_serve.reading import Reader, Stops

from mdsample.core.template import Template
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import read
from mdsample.sampling.row import pieces
from mdsample.sampling.structured import Structured

TEXTS = st.text(st.sampled_from('ab 1\n"é→😀'), max_size=8)


def filled(model: Denoiser, template: Template, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    row = template.row(model.tokenizer, {"prompt": "p 😀"})
    tokens, slot = np.array(row.tokens), np.array(row.slot)
    for number, text in enumerate(texts):
        where = np.flatnonzero(slot == number)
        ids = [*model.tokenizer.encode(text), *[model.tokenizer.end_id] * len(where)][: len(where)]
        tokens[where] = ids
    return tokens, slot


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=2, max_size=2), st.booleans(), st.randoms(use_true_random=False))
def test_the_text_grows_to_what_the_row_says(
    tiny_gsm: Denoiser, texts: list[str], stripped: bool, random: object
) -> None:
    template = Template.parse("Q {prompt} R{a:9}\n=>{b:7}.")
    tokens, slot = filled(tiny_gsm, template, texts)
    reader = Reader.between_slots(tiny_gsm.tokenizer, slot.tolist(), stripped=stripped)
    order = np.flatnonzero(slot >= 0).tolist()
    random.shuffle(order)  # type: ignore[attr-defined]
    final, told = slot < 0, ""
    for position in order:
        now = reader.told(tokens, final)
        assert now.text.startswith(told)
        told = now.text
        final = final.copy()
        final[position] = True
    last = reader.told(tokens, final)
    assert last.whole and last.text.startswith(told)
    assert last == reader.told(tokens, final, whole=True)
    whole, _ = read(tiny_gsm.tokenizer, tokens, ~final, slot, template.slots)
    if stripped:
        assert f"{last.text}." == whole or f"{last.text}" == whole.removesuffix(".").strip()


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=2, max_size=2), st.booleans(), st.integers(0, 30))
def test_shares_are_the_tokens_that_stand_in_a_text(
    tiny_gsm: Denoiser, texts: list[str], stripped: bool, most: int
) -> None:
    tokens, slot = filled(tiny_gsm, Template.parse("Q {prompt} R{a:9}\n=>{b:7}."), texts)
    tokenizer, blank = tiny_gsm.tokenizer, np.zeros(len(tokens), bool)
    reader = Reader.between_slots(tokenizer, slot.tolist(), stripped=stripped)
    plain = Reader.between_slots(tokenizer, slot.tolist(), stripped=False).told(tokens, ~blank, whole=True).text
    text = reader.told(tokens, ~blank, whole=True).text[:most]
    begin = len(plain) - len(plain.lstrip()) if stripped else 0
    at, wanted, offsets = 0, [], {}
    for number, fixed in ((0, "\n=>"), (1, "")):
        run = [p for p in np.flatnonzero(slot == number).tolist() if tokens[p] not in tokenizer.ends]
        run = run[: next((n for n, p in enumerate(run) if p != run[0] + n), len(run))]
        for place, piece in zip(run, pieces(tokenizer, tokens[run].tolist()), strict=True):
            if at < begin + len(text) and (at >= begin or at + len(piece) > begin):
                wanted.append(place)
                offsets[place] = at - begin
            at += len(piece)
        at += len(fixed)
    shares = reader.shares(tokens, blank, len(text))
    assert [place for share in shares for place in share.positions] == wanted
    assert all(share.offset == offsets[share.positions[0]] for share in shares if share.positions)


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.text("ab", max_size=12))
def test_what_is_safe_of_a_text_with_stops_is_never_taken_back(stops: list[str], text: str) -> None:
    found = Stops(tuple(stops))
    end, _ = found.cut(text)
    told = ""
    for length in range(len(text) + 1):
        now = found.sure(text[:length])
        assert now.startswith(told) and end.startswith(now)
        told = now
    assert not any(stop in end for stop in stops)
    assert told == end or not any(stop in text for stop in stops)


def test_only_the_json_of_a_schema_is_told(tiny_gsm: Denoiser) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x y"]}},
        "required": ["a", "b"],
    }
    structured = Structured.of(schema, Template.parse("Q {prompt}{think:3} A{answer:4}"), tiny_gsm.tokenizer)
    row = structured.template.row(tiny_gsm.tokenizer, {"prompt": "{"})
    tokens, slot = np.array(row.tokens), np.array(row.slot)
    (where,) = np.nonzero(slot == 1)
    ids = tiny_gsm.tokenizer.encode(" 12")
    space = tiny_gsm.tokenizer.encode(" ")
    tokens[where] = [*ids, *space * len(where)][: len(where)]
    reader = Reader.of_json(tiny_gsm.tokenizer, row.slot, structured, structured.template)
    blank = np.array(row.blank)
    assert reader.told(tokens, ~blank).text == '{"a":'
    blank[where[0]] = False
    assert reader.told(tokens, ~blank).text.startswith('{"a":')
    assert json.loads(reader.told(tokens, blank | True).text) == {"a": 12, "b": "x y"}


@pytest.mark.parametrize("text", ['{"a": [1, {"b": null}], "c": {"d": -0.5}}', "{}", ' {"é\\n": "x"}'])
def test_objects_that_the_expression_knows(text: str) -> None:
    import re

    assert re.fullmatch(JSON_OBJECT, text)
    json.loads(text)
