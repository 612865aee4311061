"""Nodes: the places of a JSON schema, what they refer to, and the refusal of what is not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast, final

import attrs

from mdsample.errors import PolicyError, shown

#: what says nothing of a value
REMARKS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"),
    *("$comment", "$schema", "$id", "$defs", "definitions"),
}
OF_TYPE: dict[str, set[str]] = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set(),
    "null": set(),
}
CHOICES = ("enum", "const", "anyOf", "oneOf", "allOf", "$ref")
#: levels of a schema, `$ref` counted
_DEEPEST = 40
#: what reading one schema may take: a step is a place, a value that is listed, two kinds that are compared, or so many
#: characters of expressions and pointers
_STEPS, _CHARACTERS = 20_000, 100
#: characters or items; an automaton counts no further
_COUNTED = 20_000

Node = Mapping[str, Any]


@attrs.frozen
class At:
    """A place in the schema: how one gets there, and the references on the way."""

    pointer: str = "#"
    refs: tuple[str, ...] = ()
    depth: int = 0

    def down(self, *names: str | int) -> At:
        """A place further in."""
        steps = "".join(f"/{str(name).replace('~', '~0').replace('/', '~1')}" for name in names)
        return attrs.evolve(self, pointer=self.pointer + steps, depth=self.depth + 1)

    def refuse(self, what: str) -> PolicyError:
        """The error that names it; `what` is the sentence without its subject."""
        return PolicyError(f"the schema at {self.pointer} {what}")


@final
class Nodes:
    """Finds its way in one schema."""

    def __init__(self, root: object) -> None:
        """The whole schema."""
        self._root, self._left = root, _STEPS

    def spend(self, steps: int, characters: int, at: At) -> None:
        """Counts what is read, and refuses when it is too much: a short schema may mean a long one by its `$ref`."""
        self._left -= steps + characters // _CHARACTERS
        if self._left < 0:
            raise at.refuse(
                f"is where reading takes more than {_STEPS:,} steps, as what a $ref means is read each time; "
                "make the schema smaller"
            )

    def resolved(self, schema: object, at: At) -> tuple[Node, At]:
        """The schema that a `$ref`, or an `allOf` of one, means."""
        if at.depth > _DEEPEST:
            raise at.refuse(f"is nested more than {_DEEPEST} levels deep")
        self.spend(1, len(at.pointer) + sum(map(len, at.refs[-1:])), at)
        if not isinstance(schema, Mapping):
            raise at.refuse(f"must be an object that describes a value; got {shown(schema)}")
        node = cast("Node", schema)
        for word in ("$ref", "allOf"):
            if word not in node:
                continue
            check(node, at, {word})
            if word == "allOf":
                ways = listed(node["allOf"], at)
                if len(ways) > 1:
                    raise at.refuse("joins several schemas by allOf; write their keywords into one")
                return self.resolved(ways[0], at.down("allOf", 0))
            name = node["$ref"]
            if name in at.refs:
                raise at.refuse(
                    f"leads back to itself by {name!r}; no slot holds what has no end, so write the levels out"
                )
            return self.resolved(self._target(name, at), attrs.evolve(at, refs=(*at.refs, name), depth=at.depth + 1))
        return node, at

    def _target(self, name: object, at: At) -> object:
        if not isinstance(name, str) or not (name == "#" or name.startswith("#/")):
            raise at.refuse(f"refers to {shown(name)}; only references within the schema are followed (#/$defs/…)")
        found: Any = self._root
        for step in name.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or step not in found:
                raise at.refuse(f"refers to {name!r}, which is not there")
            found = cast("Node", found)[step]
        return found

    def values(self, schema: object, at: At) -> set[str] | None:
        """The values of a schema as JSON, the same text for equal ones; `None` if they are not listed."""
        node, at = self.resolved(schema, at)
        if (known := constants(node)) is not None:
            kinds = types_of(node)
            return {value for value in known if not kinds or any(is_a(json.loads(value), kind) for kind in kinds)}
        few = {"boolean": {"true", "false"}, "null": {"null"}}
        kinds = types_of(node)
        if {*node} <= {"type"} | REMARKS and kinds and {*kinds} <= few.keys():
            return {value for kind in kinds for value in few[str(kind)]}
        return None

    def refuse_overlap(self, ways: list[object], at: At) -> None:
        """Refuses kinds of `oneOf` unless it is plain that no value is of two of them."""
        nodes = [self.resolved(way, at.down("oneOf", n))[0] for n, way in enumerate(ways)]
        for n, one in enumerate(nodes):
            self.spend(n, 0, at)
            if not all(self._exclude(one, other, at) for other in nodes[:n]):
                raise at.refuse(
                    "has two kinds in oneOf that one value may be of; tell them apart by their types, or by a required "
                    "property that is a const in each, or use anyOf"
                )

    def _exclude(self, one: Node, other: Node, at: At) -> bool:
        types, listed = [_types(node) for node in (one, other)], [constants(node) for node in (one, other)]
        if not types[0] & types[1] or _apart(*listed):
            return True
        shared = {*one.get("required", ())} & {*other.get("required", ())} if types == [{"object"}] * 2 else set[str]()
        inner = [[node.get("properties", {}).get(key, {}) for node in (one, other)] for key in sorted(shared)]
        return any(_apart(*(constants(self.resolved(node, at)[0]) for node in pair)) for pair in inner)


def check(node: Node, at: At, known: set[str]) -> None:
    """Refuses keywords that would be passed over."""
    known = known | REMARKS | {"type"}
    for word in node:
        if word not in known:
            raise at.refuse(f"has {word!r}, which is not read here; leave it out, or say it in another way")


def listed(value: object, at: At) -> list[object]:
    """A list with something in it."""
    entries = cast("list[object]", value) if isinstance(value, list) else []
    if not entries:
        raise at.refuse("must be a list with at least one entry")
    return entries


def count(node: Node, word: str, at: At, default: int | None) -> int | None:
    """What a keyword counts."""
    value = node.get(word, default)
    if value is not None and (type(value) is not int or value < 0):
        raise at.refuse(f"has {word} {shown(value)}; it must be a whole number from 0")
    if value is not None and value > _COUNTED:
        raise at.refuse(f"has {word} {shown(value)}, and {_COUNTED:,} are the most; make it smaller, or leave it out")
    return value


def types_of(node: Node) -> list[object]:
    """The types that it names."""
    named = node.get("type", [])
    return cast("list[object]", named) if isinstance(named, list) else [named]


def constants(node: Node) -> set[str] | None:
    """The values that it lists, as JSON; `None` if it lists none."""
    values = node.get("enum", [node["const"]] if "const" in node else None)
    return {_key(value) for value in cast("list[object]", values)} if isinstance(values, list) else None


def _apart(one: set[str] | None, other: set[str] | None) -> bool:
    return one is not None and other is not None and not one & other


def _types(node: Node) -> set[object]:
    """The types that its values may have; numbers may be integers."""
    known = constants(node)
    if known is not None:
        return {kind for kind in OF_TYPE for value in known if is_a(json.loads(value), kind)}
    kinds = {*types_of(node)} or {*OF_TYPE}
    return kinds | {"integer", "number"} if kinds & {"integer", "number"} else kinds


def is_a(value: object, kind: object) -> bool:
    """Whether a value is of a type, as JSON schema has it: 1.0 is an integer, `true` is no number."""
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and (isinstance(value, int) or value.is_integer()))
    kinds: dict[type, str] = {dict: "object", list: "array", str: "string", type(None): "null"}
    return kind == kinds.get(type(value))


def as_json(value: object) -> str:
    """As it is written in a text."""
    return json.dumps(value, ensure_ascii=False)


def _key(value: object) -> str:
    """The same for values that are equal."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)  # pyright: ignore[reportArgumentType]
