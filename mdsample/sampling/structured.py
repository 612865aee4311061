"""Structured output: a JSON schema in a template, its fixed text and slots in the place of the last slot."""

from __future__ import annotations

import json
from typing import Any

import attrs

from mdsample.constraints.python_types import build, schema_of
from mdsample.constraints.schema import Pinned, Value, read_schema
from mdsample.core.template import Field, Slot, Template, Text
from mdsample.core.tokens import Tokenizer
from mdsample.errors import MdsampleError
from mdsample.policy.base import Policy
from mdsample.policy.language import Regex
from mdsample.sampling.row import Row

#: tokens of a string that the schema does not make shorter
ROOM = 24


@attrs.frozen(eq=False)
class Structured:
    """A template whose last part is the text of a schema, and how its slots are read."""

    template: Template
    pinned: Pinned
    #: what the values are made into
    kind: object

    @staticmethod
    def of(kind: object, template: Template, tokenizer: Tokenizer, room: int = ROOM) -> Structured:
        """`kind`: a JSON schema, a dataclass or a pydantic model; it takes the place of the template's last slot.

        `room`: tokens of a string that the schema does not make shorter. Slots are called as the properties; one whose
        name the template has already gets a number. Raises `PolicyError` for what cannot be had of a schema.
        """
        last = max(place for place, piece in enumerate(template.pieces) if isinstance(piece, Slot))
        before, after = template.pieces[:last], template.pieces[last + 1 :]
        taken = [piece.name for piece in (*before, *after) if isinstance(piece, Slot | Field)]
        pinned = read_schema(schema_of(kind), taken)
        merged: list[Text | Field | Slot] = []
        for piece in (*before, *pinned.parts(tokenizer, room), *after):
            if isinstance(piece, Text) and merged and isinstance(merged[-1], Text):
                merged[-1] = Text(merged[-1].text + piece.text)
            else:
                merged.append(piece)
        return Structured(Template(tuple(merged)), pinned, kind)

    def policy(self, policy: Policy) -> Policy:
        """The policy with every value held to its language."""
        return policy + Policy(Regex(value.pattern, end="never", slot=value.name) for value in self.pinned.values)

    def text(self, row: Row) -> str:
        """The JSON of a row."""
        return "".join(row.slots[piece.name] if isinstance(piece, Value) else piece for piece in self.pinned.pieces)

    def parsed(self, row: Row) -> Any:
        """The object that a row's JSON says; `MdsampleError` if the row left before its values were filled."""
        try:
            return json.loads(self.text(row))
        except ValueError as fault:
            raise MdsampleError(
                f"row {row.id!r} left before its values were filled ({row.outcome}); leave out what stops it"
            ) from fault

    def value(self, row: Row) -> Any:
        """As `kind`: an object of a dataclass or a model, or what JSON gives. Errors as `parsed`."""
        return build(self.kind, self.parsed(row))
