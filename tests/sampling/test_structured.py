"""Structured output through the loop: whatever a model wants, what comes back parses and is valid."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.core.template import Template
from mdsample.errors import MdsampleError, ModelError, PolicyError, TemplateError
from mdsample.models.denoiser import Denoiser
from mdsample.policy.presets import PRESETS
from mdsample.sampling.structured import Structured
from mdsample.testing import ScriptedDenoiser

CALM = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
SHORT = {"type": "string", "maxLength": 5}
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": SHORT,
            "age": {"type": "integer", "minimum": -3, "maximum": 120},
            "mail": {"type": "string", "format": "email"},
            "due": {"type": "string", "format": "date"},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["a", 1, None, 'q"\\']}, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {
            "call": {"const": "move"},
            "to": {
                "type": "object",
                "properties": {"x": {"type": "number", "minimum": 0, "maximum": 9.5}, "fast": {"type": "boolean"}},
                "required": ["x"],
                "additionalProperties": False,
            },
        },
        "required": ["call", "to"],
        "additionalProperties": False,
    },
]
EXPRESSIONS = [" -?[0-9]+", "(yes|no|maybe)", "[a-z]{2,6}( [a-z]+)?", "(é|日本)?[^0-9]{1,3}", r"\$[0-9]{1,3}\.[0-9]{2}"]


def model(seed: int, sharpness: float) -> Denoiser:
    """A model over tiny-gsm's tokens that wants something of its own, and at a sharpness of 60 nothing else."""
    tokenizer: Any = mdsample.load("tiny-gsm", backend="reference").tokenizer
    return ScriptedDenoiser(tokenizer, seed, sharpness)


#: what leaves a row before it is filled says so, and is no JSON
NAMES = sorted((set(PRESETS) - {"early-exit", "p2"}) | {"p2(steps=16)"})


@CALM
@given(
    st.sampled_from(SCHEMAS),
    st.sampled_from(NAMES),
    st.sampled_from(["", "+temperature(1)", "+temperature(2)", "+temperature(0.7,top_k=3)"]),
    st.integers(0, 99),
    st.sampled_from([0.0, 3.0, 60.0]),
)
def test_every_text_parses_and_is_valid(
    schema: dict[str, Any], name: str, heat: str, seed: int, sharpness: float
) -> None:
    denoiser = model(seed, sharpness)
    structured = Structured.of(schema, Template.parse("A {answer:4} Z"), denoiser.tokenizer, room=6)
    base = mdsample.parse(name).without("stop")
    policy = structured.policy((base.without("draw") + mdsample.parse(heat[1:])) if heat else base)
    row = mdsample.sample(denoiser, {}, policy=policy, template=structured.template, seed=seed)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(structured.parsed(row))


@pytest.mark.parametrize("seed", range(4))
def test_edits_keep_a_slot_in_its_language(seed: int) -> None:
    """Each token that gives way fits the others, so they may not all give way at once."""
    denoiser = model(seed, 3.0)
    edited = 0
    for schema in SCHEMAS:
        structured = Structured.of(schema, Template.parse("A {answer:4} Z"), denoiser.tokenizer, room=6)
        policy = structured.policy(mdsample.parse("top(3)+edit(0.1)+temperature(1)"))
        row = mdsample.sample(denoiser, {}, policy=policy, template=structured.template, seed=seed)
        jsonschema.Draft202012Validator(schema).validate(structured.parsed(row))
        edited += len(row.commits) > row.filled
    assert edited or seed


@CALM
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(NAMES),
    st.sampled_from(["", "+temperature(1)", "+temperature(2,top_p=0.5)"]),
    st.integers(0, 99),
    st.sampled_from([0.0, 60.0]),
)
def test_every_text_matches(expression: str, name: str, heat: str, seed: int, sharpness: float) -> None:
    denoiser = model(seed, sharpness)
    base = mdsample.parse(name).without("stop")
    policy = (base.without("draw") + mdsample.parse(heat[1:]) if heat else base) + mdsample.Regex(expression)
    row = mdsample.sample(denoiser, {}, policy=policy, template="A{answer:9}{other:3} Z", seed=seed)
    (slot,) = [denoiser.tokenizer.decode(until(row, denoiser))]
    assert re.fullmatch(expression, slot), slot


def until(row: mdsample.Row, denoiser: Denoiser) -> list[int]:
    """The tokens of the slot `answer` before its first end token."""
    begin = len(denoiser.tokenizer.start) + len(denoiser.tokenizer.encode("A"))
    tokens = row.tokens[begin : begin + 9].tolist()
    return tokens[: next((n for n, token in enumerate(tokens) if token in denoiser.tokenizer.ends), 9)]


@dataclass
class Event:
    title: str = field(metadata={"maxLength": 6})
    day: date
    guests: list[str] = field(default_factory=list[str], metadata={"maxItems": 1, "items": SHORT})


def test_returns_gives_objects() -> None:
    denoiser = model(1, 3.0)
    one = mdsample.sample(denoiser, "x", returns=Event, template="{prompt}: {answer:4}", policy="med")
    assert isinstance(one, Event) and isinstance(one.day, date) and len(one.title) <= 6
    many = mdsample.sample(denoiser, ["x", "y"], returns=SCHEMAS[0], template="{prompt}: {answer:4}", policy="med")
    assert [isinstance(each["age"], int) for each in many] == [True, True]


def test_slots_do_not_take_a_name_of_the_template() -> None:
    schema = {"type": "object", "properties": {"prompt": SHORT, "why": SHORT}, "required": ["prompt", "why"]}
    structured = Structured.of(schema, Template.parse("{prompt}{why:4}{answer:4}"), model(0, 0.0).tokenizer)
    assert structured.template.fields == ("prompt",)
    assert structured.template.slots == ("why", "prompt-2", "why-2")


def test_what_is_left_before_it_is_filled_is_said() -> None:
    denoiser = model(0, 3.0)
    structured = Structured.of(SCHEMAS[0], Template.parse("A {answer:4}"), denoiser.tokenizer)
    policy = structured.policy(mdsample.parse("one-by-one+early-exit(99,slot='name')"))
    row = mdsample.sample(denoiser, {}, policy=policy, template=structured.template)
    with pytest.raises(MdsampleError, match="left before its values were filled"):
        structured.parsed(row)


def test_wrong_things_are_refused_before_the_first_pass() -> None:
    denoiser = model(0, 3.0)

    def refused(policy: str, template: str, sentence: str, kind: type[Exception] = PolicyError) -> None:
        with pytest.raises(kind, match=sentence):
            mdsample.sample(denoiser, "x", policy=policy, template=template)

    refused("med+regex('^a$')", "{prompt}{answer:4}", "anchor|\\^")
    refused("med+regex('[a-z]{9}[0-9]{30}')", "{prompt}{answer:4}", "fills its 4 tokens: its texts have")
    refused("med+regex('(?=a)b')", "{prompt}{answer:4}", "look")
    refused("med+integer(min=3,max=1)", "{prompt}{answer:4}", "no number from 3 to 1")
    refused("med+date('%Q')", "{prompt}{answer:9}", "a date is written with")
    refused("med+regex('yes')+regex('no')", "{prompt}{answer:4}", "no text in common")
    refused(
        "med+regex('[0-9]+')+ban([' 1','1'])+characters('x')", "{prompt}{answer:4}", "forbid every text|leave no token"
    )
    refused("med+regex('a',slot='b')", "{prompt}{answer:4}", "there is no slot 'b'")
    refused("med+regex('[0-9]+')+ended('.')", "{prompt}{answer:4}", "would cut off texts of the language")
    with pytest.raises(PolicyError, match="must be an object"):
        mdsample.sample(denoiser, "x", returns={"type": "array"}, template="{prompt}{answer:4}")
    with pytest.raises(ModelError, match="has no chat template"):
        mdsample.sample(denoiser, [{"role": "user", "content": "x"}], returns=Event)
    with pytest.raises(TemplateError, match="returns= takes chats or other prompts, not both at once; give a template"):
        mdsample.sample(denoiser, [[{"role": "user", "content": "x"}], "x"], returns=Event)
