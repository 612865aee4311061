"""Schema: a JSON schema as fixed text and slots, each slot with the language of its value.

What is in every text of a schema is fixed: braces, keys, commas. Each value is a slot, and what it leaves over is white
space, as JSON allows it, so that every way to fill the slots parses. An optional property, or an item that need not be
there, is a slot that may hold nothing. What has no shape of its own (one of several kinds, an object without required
properties, a list that may be empty, or one whose items may be missing and are of several schemas) is one slot as a
whole.

A list that has no end, or more items than can be slots, is one slot as well: its room is the limit.

Read are: types; `properties`, `required`; `items`, `prefixItems`, `minItems`, `maxItems`, `uniqueItems` of listed
values; `minLength`, `maxLength`, `pattern` (`^…$`), `format`; limits of numbers, `multipleOf`; `enum`, `const`;
`anyOf`, `oneOf` of kinds that exclude each other, `allOf` of one; `$ref` within the schema that does not lead back to
itself; a `type` beside these where it says nothing new. Everything else is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import final

import attrs

from mdsample.constraints.compile import from_expression, lengths_of
from mdsample.constraints.forms import Forms
from mdsample.constraints.lists import Items, items_of
from mdsample.constraints.nodes import CHOICES, OF_TYPE, At, Nodes, check, properties_of
from mdsample.constraints.values import as_json
from mdsample.core.template import Slot, Text
from mdsample.core.tokens import Tokenizer
from mdsample.errors import PolicyError

#: what may follow a value up to the end of its slot
FILLER = r"[ \n]*"
#: slots, and fixed texts between them
_PIECES = 2_000


@attrs.frozen
class Value:
    """A slot of a template, and what it may hold."""

    name: str
    #: where it stands in the schema, as a JSON pointer
    pointer: str
    #: of the whole slot, the white space that fills it included
    pattern: str
    #: a long text of it, without what free strings hold
    example: str
    #: the most characters of each free string in it; `None`: no limit
    strings: tuple[int | None, ...]

    def positions(self, tokenizer: Tokenizer, room: int) -> int:
        """Tokens of a slot that holds it, with `room` for every free string that is not shorter anyway.

        Raises `PolicyError` if the tokens cannot spell it, or it is too large an automaton.
        """
        strings = (room if most is None else min(room, most) for most in self.strings)
        wanted = len(tokenizer.encode(self.example)) + sum(strings)
        try:
            shortest, _ = lengths_of(from_expression(self.pattern, tokenizer, pad=False))
        except PolicyError as error:
            raise PolicyError(f"the schema at {self.pointer} cannot be had: {error}") from error
        return max(wanted, shortest)


@attrs.frozen
class Pinned:
    """A schema as fixed text and slots, in turns."""

    pieces: tuple[str | Value, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        """The slots."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Value))

    def parts(self, tokenizer: Tokenizer, room: int = 24) -> tuple[Text | Slot, ...]:
        """The pieces of a template; `room`: tokens of a string that the schema does not make shorter."""
        return tuple(
            Text(piece) if isinstance(piece, str) else Slot(piece.name, piece.positions(tokenizer, room))
            for piece in self.pieces
        )


def read_schema(schema: object, taken: Sequence[str] = ()) -> Pinned:
    """Fixed text and slots of a JSON schema; `PolicyError` names the place of what cannot be had.

    `taken`: names that slots must not have.
    """
    parts: list[str | Value] = []
    for part in _Reader(schema).pieces(schema, At(), "value"):
        parts.append(part)
        if len(parts) > _PIECES:
            raise PolicyError(f"the schema has more than {_PIECES:,} parts; make it smaller")
    pieces: list[str | Value] = []
    fixed: list[str] = []
    for part in (*parts, None):
        if isinstance(part, str):
            fixed.append(part)
            continue
        pieces += ["".join(fixed)] if fixed else []
        pieces += [part] if part else []
        fixed = []
    names = [piece.name for piece in pieces if isinstance(piece, Value)]
    if not names:
        raise PolicyError("the schema allows one text alone; there is nothing to fill in")
    numbered = iter(_numbered(names, taken))
    return Pinned(
        tuple(piece if isinstance(piece, str) else attrs.evolve(piece, name=next(numbered)) for piece in pieces)
    )


def value_pattern(schema: object) -> str:
    """The regular expression of all texts of a schema, each written in one way (`{"a": 1, "b": [2]}`)."""
    return Forms(Nodes(schema)).form(schema, At()).pattern


def _numbered(names: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    """Names that differ, also from others, and that slots may have."""
    taken, counts = set(others), dict[str, int]()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        plain = plain if re.match("[A-Za-z_]", plain) else f"_{plain}"
        free, count = plain, counts.get(plain, 1)
        while free in taken:
            count += 1
            free = f"{plain}-{count}"
        taken.add(free)
        counts[plain] = count
        yield free


@final
class _Reader:
    """Takes one schema apart."""

    def __init__(self, root: object) -> None:
        self._nodes = Nodes(root)
        self._forms = Forms(self._nodes)

    def pieces(self, schema: object, at: At, name: str) -> Iterator[str | Value]:
        """As fixed text and slots."""
        node, at = self._nodes.resolved(schema, at)
        kind = node.get("type") if not any(choice in node for choice in CHOICES) else None
        if kind == "object":
            check(node, at, OF_TYPE["object"])
            required, optional = properties_of(node, at)
            if required:
                yield from self._object(required, optional, at, name)
                return
        if kind == "array":
            items = items_of(node, at)
            if items.least and items.most is not None and items.apart:
                yield from self._array(items, items.most, at, name)
                return
        form = self._forms.form(node, at)
        if form.pattern == re.escape(form.example):
            yield f" {form.example}"
        else:
            yield Value(name, at.pointer, f" {form.pattern}{FILLER}", f" {form.example}", form.strings)

    def _object(
        self, required: dict[str, object], optional: dict[str, object], at: At, name: str
    ) -> Iterator[str | Value]:
        yield " {" if at.pointer != "#" else "{"
        inner = "" if at.pointer == "#" else f"{name}-"
        for number, (key, schema) in enumerate(required.items()):
            yield f"{', ' if number else ''}{as_json(key)}:"
            yield from self.pieces(schema, at.down("properties", key), f"{inner}{key}")
        for key, schema in optional.items():
            yield self._optional(f"{as_json(key)}: ", schema, at.down("properties", key), f"{inner}{key}")
        yield "}"

    def _array(self, items: Items, most: int, at: At, name: str) -> Iterator[str | Value]:
        yield " [" if at.pointer != "#" else "["
        for number in range(most):
            schema, place = items.schema(number, at)
            label = f"{name}-{number + 1}"
            if number < items.least:
                yield "," if number else ""
                yield from self.pieces(schema, place, label)
            else:
                yield self._optional("", schema, place, label)
        yield "]"

    def _optional(self, before: str, schema: object, at: At, name: str) -> Value:
        form = self._forms.form(schema, at)
        pattern = f"(?:, {re.escape(before)}{form.pattern})?{FILLER}"
        return Value(name, at.pointer, pattern, f", {before}{form.example}", form.strings)
