"""Nodes: the places of a JSON schema, what they refer to, and the refusal of what is not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, final

import attrs

from mdsample.constraints.values import as_json, is_a, key_of, kind_of
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
#: what a listed value counts beside its own characters
_LISTED = 10
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
            if word in node:
                check(node, at, {word})
                found = self._referred(node["$ref"], at) if word == "$ref" else self._joined(node["allOf"], at)
                if "type" in node:
                    self.refuse_other_types(node, word, self.kinds(*found), at)
                return found
        return node, at

    def _joined(self, ways: object, at: At) -> tuple[Node, At]:
        inner = listed(ways, at.down("allOf"))
        if len(inner) > 1:
            raise at.refuse("joins several schemas by allOf; write their keywords into one")
        return self.resolved(inner[0], at.down("allOf", 0))

    def _referred(self, name: object, at: At) -> tuple[Node, At]:
        target = self._target(name, at)
        if name in at.refs:
            raise at.refuse(f"leads back to itself by {name!r}; no slot holds what has no end, so write the levels out")
        return self.resolved(target, attrs.evolve(at, refs=(*at.refs, str(name)), depth=at.depth + 1))

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

    def constants(self, node: Node, at: At) -> dict[str, object] | None:
        """The values that it lists and that are of its types, by what they are equal to; `None` if it lists none."""
        if "enum" not in node and "const" not in node:
            return None
        check(node, at, {"enum", "const"})
        values = listed(node["enum"], at.down("enum")) if "enum" in node else [node["const"]]
        kinds = types_of(node, at)
        only = _key(node["const"], at) if "const" in node else None
        kept = [value for value in values if not kinds or any(is_a(value, kind) for kind in kinds)]
        keys = [_key(value, at) for value in kept]
        self.spend(0, _LISTED * len(values) + sum(map(len, keys)), at)
        # the first of those that are equal
        known = {key: value for key, value in reversed([*zip(keys, kept, strict=True)]) if only in (None, key)}
        if not known:
            raise at.refuse("allows no value: none of those it lists is of its type, or its const")
        return dict(reversed(known.items()))

    def values(self, schema: object, at: At) -> dict[str, object] | None:
        """The values of a schema, by what they are equal to; `None` if they are not listed."""
        node, at = self.resolved(schema, at)
        kinds = types_of(node, at)
        few: dict[str, list[object]] = {"boolean": [True, False], "null": [None]}
        if kinds and {*kinds} <= few.keys() and not any(choice in node for choice in CHOICES):
            return {as_json(value): value for kind in kinds for value in few[kind]}
        return self.constants(node, at)

    def kinds(self, node: Node, at: At) -> set[str]:
        """The types that its values may have."""
        for choice in ("anyOf", "oneOf"):
            if choice in node:
                ways = enumerate(listed(node[choice], at.down(choice)))
                inner = [self.kinds(*self.resolved(way, at.down(choice, n))) for n, way in ways]
                return {kind for kinds in inner for kind in kinds}
        known = self.constants(node, at)
        if known is not None:
            return {kind for value in known.values() if (kind := kind_of(value)) is not None}
        return {*types_of(node, at)} or {*OF_TYPE}

    def refuse_other_types(self, node: Node, word: str, kinds: set[str], at: At) -> None:
        """Refuses a `type` beside a keyword whose values may be of other types; where they are not it says nothing."""
        named = {*types_of(node, at)}
        others = kinds - named - ({"integer"} if "number" in named else set[str]())
        if others:
            raise at.refuse(
                f"has the type {', '.join(sorted(named))} beside {word}, which allows {', '.join(sorted(others))}; "
                "write the type there, and leave it out here"
            )

    def refuse_overlap(self, ways: list[object], at: At) -> None:
        """Refuses kinds of `oneOf` unless it is plain that no value is of two of them."""
        marks = [self._marks(*self.resolved(way, at.down("oneOf", n))) for n, way in enumerate(ways)]
        for n, one in enumerate(marks):
            self.spend(n, 0, at)
            for other in marks[:n]:
                if not any(one[mark].isdisjoint(other[mark]) for mark in one.keys() & other.keys()):
                    raise at.refuse(
                        "has two kinds in oneOf that one value may be of; tell them apart by their types, or by a "
                        "required property that is a const in each, or use anyOf"
                    )

    def _marks(self, node: Node, at: At) -> dict[str, set[str]]:
        """What tells its values from others: their types, what they are equal to, and that of required properties."""
        kinds = self.kinds(node, at)
        numbers = {"integer", "number"}
        marks = {"types": kinds | numbers if kinds & numbers else kinds}
        if any(choice in node for choice in CHOICES):
            known = self.constants(node, at)
            return marks if known is None else {**marks, "values": {*known}}
        if kinds == {"object"}:
            for key, schema in properties_of(node, at)[0].items():
                inner, place = self.resolved(schema, at.down("properties", key))
                known = self.constants(inner, place)
                if known is not None:
                    marks[f"property {key}"] = {*known}
        return marks


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


def types_of(node: Node, at: At) -> list[str]:
    """The types that it names, each once."""
    named = node.get("type", [])
    kinds = cast("list[object]", named) if isinstance(named, list) else [named]
    for kind in kinds:
        if not isinstance(kind, str) or kind not in OF_TYPE:
            raise at.refuse(f"has the type {shown(kind)}; types are {', '.join(OF_TYPE)}")
    return [*dict.fromkeys(str(kind) for kind in kinds)]


def properties_of(node: Node, at: At) -> tuple[dict[str, object], dict[str, object]]:
    """The required ones and the others, both in the order of the schema."""
    properties = node.get("properties", {})
    needed = node.get("required", [])
    if not isinstance(properties, dict) or not isinstance(needed, list):
        raise at.refuse("needs an object as properties and a list as required")
    named = cast("dict[object, object]", properties)
    if not named and node.get("additionalProperties") is not False:
        raise at.refuse("is an object without properties, whose keys cannot be known; name them")
    for key in named:
        if not isinstance(key, str):
            raise at.refuse(f"has the property {shown(key)}; names of properties are texts")
        _key(key, at)
    for key in cast("list[object]", needed):
        if not isinstance(key, str) or key not in named:
            raise at.refuse(f"requires {shown(key)}, which is none of its properties; describe it there")
    wanted = {str(key) for key in cast("list[object]", needed)}
    both = [{str(key): schema for key, schema in named.items() if (key in wanted) is which} for which in (True, False)]
    return both[0], both[1]


def _key(value: object, at: At) -> str:
    """As `key_of`, refused where JSON cannot write it."""
    try:
        return key_of(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise at.refuse(
            f"has the value {shown(value)}, which JSON cannot write ({error!s:.60}); values are texts, finite numbers, "
            "true, false, null, and lists and objects of them"
        ) from error
