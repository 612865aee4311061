"""JSON schemas: whatever fills the slots of one parses and is valid, as `jsonschema` has it."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from enum import Enum, StrEnum
from functools import cache
from itertools import combinations
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import mdsample
from mdsample.constraints.compile import from_expression, within_seconds
from mdsample.constraints.expression import byte_table
from mdsample.constraints.formats import FORMATS
from mdsample.constraints.nodes import CHOICES, OF_TYPE
from mdsample.constraints.patterns import date as dates
from mdsample.constraints.patterns import integer, number
from mdsample.constraints.python_types import build, schema_of
from mdsample.constraints.schema import Value, read_schema, value_pattern
from mdsample.core.language import Automaton
from mdsample.core.template import Template
from mdsample.core.tokens import Tokenizer
from mdsample.errors import PolicyError

TEXT = {"type": "string", "maxLength": 8}


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": [*required]}


SCHEMAS: dict[str, dict[str, Any]] = {
    "card": record({"name": TEXT, "mail": {"type": "string", "format": "email"}}, phone={"type": ["string", "null"]}),
    "call": record(
        {
            "function": {"const": "move"},
            "arguments": record(
                {"by": {"type": "integer", "minimum": -5, "exclusiveMaximum": 120}}, fast={"type": "boolean"}
            ),
        }
    ),
    "days": record({"from": {"type": "string", "format": "date"}}, to={"type": "string", "format": "date"}),
    "row": record({f"c{n}": {"type": "number", "minimum": -1, "maximum": 10.125} for n in range(3)}),
    "list": {"type": "array", "items": {"enum": ["a", 1, None, 'q"\\é']}, "minItems": 2, "maxItems": 4},
    "maybe none": record({"tags": {"type": "array", "items": TEXT, "maxItems": 3}}),
    "all optional": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 9}, "b": TEXT, "c": {"type": "null"}},
    },
    "kinds": record(
        {"x": {"anyOf": [{"type": "number", "exclusiveMinimum": 0.5, "maximum": 2}, TEXT, {"type": "null"}]}}
    ),
    "pair": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, {"$ref": "#/$defs/point"}],
        "items": False,
        "minItems": 1,
        "$defs": {
            "point": record({"x": {"$ref": "#/$defs/axis"}}, y={"$ref": "#/$defs/axis"}),
            "axis": {"type": "integer"},
        },
    },
    "row of kinds": {
        "type": "array",
        "prefixItems": [{"enum": [1, 2]}, {"enum": ["a", "b"]}],
        "items": {"type": "boolean"},
        "minItems": 1,
        "maxItems": 4,
    },
    "either": record(
        {
            "shape": {
                "oneOf": [
                    record({"kind": {"const": "dot"}}),
                    record({"kind": {"const": "disc"}, "r": {"type": "integer", "minimum": 1}}),
                ]
            }
        }
    ),
    "steps": record(
        {
            "a": {"type": "integer", "multipleOf": 25, "minimum": -130},
            "b": {"type": "integer", "multipleOf": 7, "minimum": -20, "maximum": 300},
            "c": {"type": "number", "multipleOf": 4, "exclusiveMaximum": 12},
        }
    ),
    "open": record(
        {
            "any": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}},
            "some": {"type": "array", "items": TEXT, "minItems": 2},
            "long": {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 100},
            "first": {"type": "array", "prefixItems": [{"const": "x"}], "items": {"type": "boolean"}},
        }
    ),
    "different": record(
        {
            "a": {"type": "array", "items": {"enum": ["a", 1, 1.0, True]}, "uniqueItems": True, "minItems": 1},
            "b": {"type": "array", "items": {"type": ["boolean", "null"]}, "uniqueItems": True, "minItems": 3},
            "c": {
                "type": "array",
                "prefixItems": [{"enum": [1, 2]}],
                "items": {"enum": [2, 3]},
                "uniqueItems": True,
                "maxItems": 2,
                "minItems": 2,
            },
        }
    ),
    "patterned": record(
        {"zip": {"type": "string", "pattern": "^[0-9]{5}(-[0-9]{4})?$"}, "id": {"type": "string", "format": "uuid"}}
    ),
    "long": record({"text": {"type": "string", "minLength": 3}, "note": {"allOf": [TEXT], "title": "a note"}}),
}
EXPRESSIONS = [
    integer(-20, 1500), integer(7, None), integer(None, -3), number(0.5, 12.25, 2), number(None, 0, 1),
    dates(), dates("%-d %B %Y", 1999, 2001), dates("%H:%M"), "yes|no|maybe( not)?", r"[A-Z][a-z]+( [A-Z][a-z]+){1,2}",
    r"\d{3}-\d{4}", r"(?i)ok(ay)?", r"[^\n]{1,12}", r"#[0-9a-f]{6}", r"(a|abc)*d?", r"[\w.]+@\w+\.(com|org)",
    r"[\s\S]{3,9}", r"[^\d\s]{2,5}\W\S", r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", r"\[(\d(, \d)*)?\]",
    "[äöü€😀]{2,3}", r"[^\\]*\\boxed\{[^}\\]{1,9}\}",
]  # fmt: skip


@cache
def tokenizer() -> Tokenizer:
    return mdsample.load("tiny-gsm", backend="reference").tokenizer


def drawn(automaton: Automaton, length: int, source: random.Random) -> list[int] | None:
    """A random row of the language; every way on is as likely as another, whatever comes after it."""
    size = len(automaton.accepting)
    able = [automaton.accepting]
    for _ in range(length):
        before = np.zeros(size, bool)
        before[automaton.source[able[-1][automaton.target]]] = True
        able.append(before)
    if not able[-1][0]:
        return None
    among = [np.flatnonzero(automaton.classes == symbol) for symbol in range(automaton.classes.max() + 1)]
    state, row = 0, list[int]()
    for left in reversed(range(length)):
        ways = np.flatnonzero((automaton.source == state) & able[left][automaton.target])
        way = source.choice(ways.tolist())
        row.append(int(source.choice(among[automaton.symbol[way]].tolist())))
        state = int(automaton.target[way])
    assert automaton.accepting[state]
    return row


def filled(schema: object, source: random.Random) -> str:
    """A random text of a schema, as a template would be filled."""
    text = ""
    for piece in read_schema(schema).pieces:
        if isinstance(piece, Value):
            automaton = from_expression(piece.pattern, tokenizer(), pad=False)
            row = drawn(automaton, piece.positions(tokenizer(), 12), source)
            assert row is not None, piece
            piece = tokenizer().decode(row)
        text += piece
    return text


def strict(name: str) -> dict[str, Any]:
    """With nothing beside what is described."""
    return json.loads(
        json.dumps(SCHEMAS[name]).replace('"type": "object"', '"type": "object", "additionalProperties": false')
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_fills_the_slots_is_valid(name: str, count: int = 12) -> None:
    source = random.Random(name)
    check = jsonschema.Draft202012Validator(strict(name), format_checker=jsonschema.FormatChecker())
    seen = set()
    for _ in range(count):
        text = filled(SCHEMAS[name], source)
        parsed = json.loads(text)
        check.validate(parsed)
        seen.add(json.dumps(parsed))
    assert len(seen) > 1 or name == "either"
    # and as one expression
    whole = re.compile(value_pattern(SCHEMAS[name]))
    for text in seen:
        written = json.dumps(json.loads(text), ensure_ascii=False)
        if "\\" not in written and "." not in written:  # what can be written in several ways
            assert whole.fullmatch(written), written


@pytest.mark.parametrize("pattern", EXPRESSIONS)
def test_a_row_of_an_expression_matches(pattern: str, count: int = 12) -> None:
    automaton, source = from_expression(pattern, tokenizer(), pad=True), random.Random(pattern)
    rows = [row for _ in range(count) if (row := drawn(automaton, source.randint(8, 24), source)) is not None]
    assert rows
    for row in rows:
        assert re.fullmatch(pattern, tokenizer().decode(row)), row


def test_formats_have_their_example() -> None:
    for name, (pattern, example) in FORMATS.items():
        assert re.fullmatch(pattern, example), name
        assert byte_table(pattern).size < 1000


def test_what_is_in_every_text_is_fixed() -> None:
    pinned = read_schema(SCHEMAS["call"])
    assert [piece if isinstance(piece, str) else piece.name for piece in pinned.pieces] == [
        '{"function": "move", "arguments": {"by":',
        "arguments-by",
        "arguments-fast",
        "}}",
    ]
    template = Template(pinned.parts(tokenizer()))
    assert template.slots == ("arguments-by", "arguments-fast")
    assert Template.parse(str(template)) == template


REFUSED: list[tuple[object, str, str]] = [
    ({}, "#", "names no type"),
    (True, "#", "must be an object"),
    ({"type": "text"}, "#", "has the type 'text'"),
    ({"type": "array", "items": {"enum": [1, 2]}, "minItems": 3, "uniqueItems": True}, "#", "no list has both"),
    ({"type": "array", "items": {"enum": [*range(9)]}, "uniqueItems": True}, "#", "more than 2,000 lists"),
    (record({"x": {"type": "array", "items": TEXT, "uniqueItems": True}}), "#/properties/x", "values are not listed"),
    (record({"x": {"type": "integer", "multipleOf": 7}}), "#/properties/x", "limits that lie closer"),
    (record({"x": {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6}}), "#/properties/x", "no multiple"),
    (record({"x": {"type": "integer", "multipleOf": 0}}), "#/properties/x", "whole numbers above 0"),
    (record({"x": {"type": "array", "items": True}}), "#/properties/x/items", "must be an object"),
    (record({"x": {"type": "array", "items": {}, "minItems": 3, "maxItems": 2}}), "#/properties/x", "no list has both"),
    (record({"x": {"type": "string", "minLength": 3, "maxLength": 2}}), "#/properties/x", "no string has both"),
    (record({"x": {"type": "integer", "minimum": 3, "maximum": 2}}), "#/properties/x", "no integer keeps"),
    (record({"x": {"type": "integer", "exclusiveMinimum": 2, "maximum": 2.5}}), "#/properties/x", "no integer keeps"),
    (record({"x": {"type": "number", "multipleOf": 0.1}}), "#/properties/x", "only whole numbers above 0"),
    (record({"x": {"enum": ["a"], "type": "integer"}}), "#/properties/x", "allows no value"),
    (record({"x": {"type": "object"}}), "#/properties/x", "without properties"),
    ({"type": "object", "properties": {"a": TEXT}, "required": ["b"]}, "#", "requires 'b'"),
    (record({"x": {"$ref": "#"}}), "#/properties/x/properties/x", "leads back to itself"),
    (record({"x": {"$ref": "#/$defs/y"}}), "#/properties/x", "is not there"),
    (record({"x": {"$ref": "https://example.com/y"}}), "#/properties/x", "within the schema"),
    (record({"x": {"type": "string", "pattern": "a"}}), "#/properties/x", "write ^…$"),
    (record({"x": {"type": "string", "pattern": "^.*$"}}), "#/properties/x", "quotes, backslashes"),
    (record({"x": {"type": "string", "pattern": "^(?=a)b$"}}), "#/properties/x", "looks around"),
    (record({"x": {"type": "string", "format": "iri"}}), "#/properties/x", "known are date"),
    (record({"x": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}), "#/properties/x", "tell them apart"),
    (record({"x": {"allOf": [TEXT, TEXT]}}), "#/properties/x", "by allOf"),
    (record({"x": {"type": "integer", "allOf": [TEXT]}}), "#/properties/x", "has the type integer beside allOf"),
    ({"type": "integer", "$ref": "#/$defs/a", "$defs": {"a": {"enum": ["x", 1]}}}, "#", "which allows string"),
    (record({"x": {"type": "string", "anyOf": [TEXT, {"type": "null"}]}}), "#/properties/x", "which allows null"),
    (record({"x": {"type": "integer", "oneOf": [{"type": "number"}, TEXT]}}), "#/properties/x", "number, string"),
    (record({"x": {"oneOf": [{"const": [1]}, {"const": [1.0]}]}}), "#/properties/x", "that one value may be of"),
    (
        {"type": "array", "items": {"enum": [[1], [1.0], {"a": 2}, {"a": 2.0}]}, "minItems": 3, "uniqueItems": True},
        "#", "needs 3 different items",
    ),
    ({"type": "array", "items": {"enum": ["a"], "minLength": 5}, "uniqueItems": True}, "#/items", "has 'minLength'"),
    ({"type": "array", "items": {"enum": ["a", "b"], "const": "a"}, "minItems": 2, "uniqueItems": True}, "#", "2 diff"),
    (record({"x": {"type": "string", "pattern": "^a)|(b$"}}), "#/properties/x", "not a regular expression"),
    (record({"x": {"type": "string", "pattern": "^a\\$"}}), "#/properties/x", "write ^…$"),
    (record({"x": {"type": "integer", "minimum": 10**400}}), "#/properties/x", "at most 100 digits"),
    (record({"x": {"type": "number", "multipleOf": float("inf")}}), "#/properties/x", "at most 100 digits"),
    (record({"x": {"enum": [1, float("-inf")]}}), "#/properties/x", "JSON cannot write"),
    (record({"x": {"enum": ["\ud800", "a"]}}), "#/properties/x", "JSON cannot write"),
    (record({"\ud800": TEXT}), "#", "JSON cannot write"),
    (record({"x": {"type": {"a": 1}}}), "#/properties/x", "has the type {'a': 1}"),
    (record({"x": {"type": "string", "format": ["date"]}}), "#/properties/x", "known are date"),
    ({"type": "object", "properties": {"a": TEXT}, "required": [["a"]]}, "#", "requires ['a']"),
    ({"oneOf": [{"type": "object", "required": 5}, {"type": "null"}]}, "#/oneOf/0", "list as required"),
    (record({"x/y": {"type": "string", "maxLength": -1}}), "#/properties/x~1y", "whole number"),
    (record({"x": {"type": "string", "maxLength": 3000}}), "#/properties/x", "cannot be had"),
    ({"const": 3}, "", "nothing to fill in"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "pointer", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_cannot_be_had_is_refused_by_its_place(schema: object, pointer: str, said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said)) as refusal:
        read_schema(schema).parts(tokenizer())
    assert f"the schema at {pointer} " in str(refusal.value) or not pointer
    assert "\n" not in str(refusal.value)


def test_a_type_that_only_says_again_what_is_said_is_read() -> None:
    for schema in (
        {"type": "number", "anyOf": [{"type": "integer", "maximum": 3}, {"enum": [0.5, 7.0]}]},
        {"type": ["string", "null"], "oneOf": [TEXT, {"type": "null"}]},
        {"type": "string", "allOf": [TEXT]},
        {"type": "integer", "$ref": "#/$defs/a", "$defs": {"a": {"const": 3}}},
    ):
        plain = {word: value for word, value in schema.items() if word != "type"}
        assert value_pattern(schema) == value_pattern(plain)


JSONS = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 0.5, 10**400, math.inf, math.nan, "", "a", "object", "string", "^a$",
                     "^(b$", "date", "#", "#/$defs/a", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["a", "type", "enum"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
KEYWORDS = sorted({*CHOICES, *(word for words in OF_TYPE.values() for word in words), "type", "$defs", "title"})


def places(schema: object) -> list[tuple[dict[str, Any] | list[Any], Any]]:
    """Every value of a schema, by what holds it and where."""
    if not isinstance(schema, dict | list):
        return []
    keys = [*schema] if isinstance(schema, dict) else [*range(len(schema))]
    return [(schema, key) for key in keys] + [place for key in keys for place in places(schema[key])]


@settings(max_examples=400)
@given(name=st.sampled_from([*SCHEMAS]), value=JSONS, word=st.sampled_from(KEYWORDS), data=st.data())
def test_anything_in_the_place_of_anything_is_read_or_refused(name: str, value: object, word: str, data: Any) -> None:
    schema = copy.deepcopy(SCHEMAS[name])
    holder, key = data.draw(st.sampled_from(places(schema)))
    if isinstance(holder, dict) and data.draw(st.booleans()):
        key = word
    holder[key] = value
    for read in (read_schema, value_pattern):
        with suppress(PolicyError):
            read(schema)


def test_a_schema_that_doubles_is_no_burden() -> None:
    twice = {f"l{n}": record({key: {"$ref": f"#/$defs/l{n + 1}"} for key in "ab"}) for n in range(16)}
    schema = {"$ref": "#/$defs/l0", "$defs": {**twice, "l16": TEXT}}
    for read in (read_schema, value_pattern):
        with pytest.raises(PolicyError, match="smaller"):
            read(schema)


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"const": 1}
    for _ in range(levels):
        inner = {"type": "array", "maxItems": 64, "items": inner}
    return inner


BLOCK = {"enum": ["x" * 90 + str(n) for n in range(190)]}
ENDLESS: dict[str, tuple[dict[str, Any], str]] = {
    "a count": ({"type": "array", "items": {"enum": [1, 2]}, "minItems": 10**9}, "minItems 1000000000, and 20,000"),
    "a count without end": ({"type": "string", "maxLength": 10**5000}, "20,000 are the most"),
    "counts in counts": (nested(15), "texts of more than 20,000 characters"),
    "optional ones": (
        {"properties": {f"p{n}": {"$ref": "#/$defs/b"} for n in range(100)}, "$defs": {"b": BLOCK}, "type": "object"},
        "more than 20,000",
    ),
    "the same twice": (
        {"$ref": "#/$defs/0", "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(18)}},
        "takes more than 20,000 steps",
    ),
    "different ones": (
        {"type": "array", "uniqueItems": True, "prefixItems": [{"const": n} for n in range(1500)]},
        "64 are the most",
    ),
    "long different ones": (
        {"type": "array", "uniqueItems": True, "items": {"enum": ["x" * 3000 + str(n) for n in range(6)]}},
        "20,000 characters of them",
    ),
    "kinds": ({"oneOf": [{"const": n} for n in range(5000)]}, "takes more than 20,000 steps"),
}
ENDLESS["the same twice"][0]["$defs"]["18"] = {"const": 1}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_short_schema_of_something_long_is_refused_before_that_is_built(name: str) -> None:
    schema, said = ENDLESS[name]
    tracemalloc.start()
    try:
        for read in (read_schema, value_pattern):
            with pytest.raises(PolicyError, match=said):
                read(schema)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_of_the_optional_properties_may_be_missing(count: int) -> None:
    keys = "abcd"[:count]
    pattern = value_pattern({"type": "object", "properties": {key: {"const": 1} for key in keys}})
    texts = {json.dumps(dict.fromkeys(some, 1)) for n in range(count + 1) for some in combinations(keys, n)}
    assert all(re.fullmatch(pattern, text) for text in texts) and len(texts) == 2**count
    assert not any(re.fullmatch(pattern, text) for text in ("{, }", '{, "a": 1}', '{"b": 1, "a": 1}'))


def test_as_many_optional_properties_as_there_is_room_for() -> None:
    pattern = value_pattern({"type": "object", "properties": {f"p{n}": {"const": 1} for n in range(200)}})
    assert len(pattern) < 20_000 and byte_table(pattern).size > 2_000


def test_expressions_of_patterns_have_the_same_limit_together() -> None:
    schema = record({f"p{n}": {"type": "string", "pattern": f"^[a-c]{{{n},}}$"} for n in range(1, 4)})
    with within_seconds(1e-9), pytest.raises(PolicyError, match="take too long to compile, all of them together"):
        read_schema(schema)


class Colour(Enum):
    RED, BLUE = "red", "blue"


@dataclass
class Place:
    street: str
    number: int = 0


@dataclass
class Person:
    name: str
    born: date
    colour: Colour
    kind: Literal["a", "b"]
    size: float
    home: Place | None
    tags: list[str] = field(metadata={"maxItems": 2})
    at: tuple[int, int] = (0, 0)


class Card(BaseModel):
    name: str = Field(max_length=6)
    level: Literal[1, 2]
    seats: list[int] = Field(min_length=1, max_length=2)
    more: str | None = None


@pytest.mark.parametrize("kind", [Person, Card])
def test_a_text_becomes_an_object_of_python(kind: Any) -> None:
    source = random.Random(0)
    for _ in range(10):
        parsed = json.loads(filled(schema_of(kind), source))
        made = build(kind, parsed)
        assert isinstance(made, kind) and made.name == parsed["name"]
        if isinstance(made, Person):
            assert made.born.isoformat() == parsed["born"] and made.colour.value == parsed["colour"]
            assert made.home is None or made.home == Place(**parsed["home"])
            assert type(made.size) is float and made.at == tuple(parsed.get("at", (0, 0)))


class Level(StrEnum):
    LOW = "low"


class Point(Enum):
    HOME, AWAY = (0, 0), (1.0, 2)


class Odds(Enum):
    YES, ONE = True, "1"


def test_every_member_of_an_enum_comes_back() -> None:
    for kind in (Point, Odds, Colour):
        values = [json.loads(text) for text in map(json.dumps, schema_of(kind)["enum"])]
        assert [build(kind, value) for value in values] == [*kind]
        assert value_pattern(schema_of(kind))
    assert build(Literal[Level.LOW, 1], "low") is Level.LOW and build(Literal[1, True], True) is True
    for kind, parsed in ((Point, [0, 1]), (Odds, 1)):
        with pytest.raises(PolicyError, match=" is no "):
            build(kind, parsed)


@dataclass
class Tree:
    left: Tree | None


@dataclass
class Odd:
    what: complex


def test_types_without_a_schema_are_refused() -> None:
    for kind, said in ((Tree, "Tree.left holds itself"), (Odd, "Odd.what is"), (int | dict, "has no JSON schema")):
        with pytest.raises(PolicyError, match=said):
            schema_of(kind)
    for kind, parsed in ((Place, {"street": 3}), (Place, {"streets": "x"}), (bool, 1), (int, True), (int | None, "x")):
        with pytest.raises(PolicyError, match=" is no "):
            build(kind, parsed)
    assert schema_of({"type": "null"}) == {"type": "null"} and build({}, [1]) == [1]
