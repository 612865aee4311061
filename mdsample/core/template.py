"""Template: text with fixed parts, fields that each row fills in, and named slots that the model fills.

    Question: {prompt}
    Reasoning:{reasoning:96}
    Answer:{answer:4}

`{name}` is a field, `{name:96}` a slot of 96 blanks, `{{` and `}}` are literal braces. Special tokens written in the
template mean those tokens; in what a field brings they are plain text. The tokens that a model wants before every text
are put there, unless the template begins with them.

A model that sees a row block by block cannot see what stands after a slot, and such a template is refused
(`Canvas.unseen`); `{name:96:blind}` is a slot that need not see it.

`{name:1-6}` is a slot whose length is not known: 1 to 6 positions. Such a template stands for one of each length
(`Template.candidates`), and a row is of one of these. `{name:64-256+}` is one that grows: it has 64 positions, and
more, up to 256, as long as the model does not see an end (`mdsample.sampling.growth`).

A row may bring the content of a slot: it is *given*. Its tokens stand there from the beginning, the end token in the
rest of the slot, as these models are trained on a text that is shorter than its slot; the sampler does not write there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product, takewhile
from math import prod
from typing import cast

import attrs

from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer, filled_up, parted
from mdsample.errors import TemplateError, pointed, shown


@attrs.frozen
class Text:
    """Fixed text."""

    text: str


@attrs.frozen
class Field:
    """A place for a row's own text."""

    name: str


@attrs.frozen
class Slot:
    """A run of blanks."""

    name: str
    #: positions; the most, where the length is not known
    length: int
    #: it need not see the text after it: a model that sees a row block by block cannot
    blind: bool = False
    #: the fewest positions, where the length is not known
    shortest: int | None = None
    #: it has the fewest positions after which the model sees an end, found before the run
    grows: bool = False

    @property
    def step(self) -> int:
        """By how many positions it grows: an eighth of the fewest, at most 8, as DAEDAL does from 64 on."""
        return min(8, max(1, (self.shortest or 0) // 8)) if self.grows else 1

    @property
    def lengths(self) -> Sequence[int]:
        """How many positions it may have, ascending."""
        fewest = self.length if self.shortest is None else self.shortest
        return [*range(fewest, self.length, self.step), self.length]


@attrs.frozen
class Encoded:
    """The tokens of one row."""

    #: ids; the mask token in blanks
    tokens: list[int]
    #: number of the slot of each position, −1 for fixed text
    slot: list[int]
    #: what the model is to fill: slots, but for the given ones
    blank: list[bool]


_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
#: digits of a slot's length
_DIGITS = 8
#: blanks of a row; no model takes as many, and more would fill the memory before one can say so
_MOST = 1 << 20
#: lengths that are tried for one row; each costs a run
MOST_CANDIDATES = 64
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@attrs.frozen
class Template:
    """Fixed text, fields and slots in their order."""

    pieces: tuple[Text | Field | Slot, ...]

    @staticmethod
    def parse(text: str) -> Template:
        """Reads a template; raises `TemplateError` that points at the fault."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a template is read from text, such as '{{prompt}}{{answer:4}}'; got {shown(text)}")
        pieces: list[Text | Field | Slot] = []
        literal = ""
        last = 0
        for match in _PIECE.finditer(text):
            literal += text[last : match.start()]
            last = match.end()
            if match[0] in ("{{", "}}"):
                literal += match[0][0]
                continue
            if match[1] is None:
                raise _fault(f"a single {match[0]!r}; write {match[0] * 2!r} for a literal brace", text, match.start())
            if literal:
                pieces.append(Text(literal))
                literal = ""
            pieces.append(_hole(match[1], text, match.start()))
        literal += text[last:]
        if literal:
            pieces.append(Text(literal))
        return Template(tuple(pieces))

    def __attrs_post_init__(self) -> None:
        """Checks names."""
        if not isinstance(self.pieces, tuple) or not all(isinstance(x, Text | Field | Slot) for x in self.pieces):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a template is made of Text, Field and Slot; got {shown(self.pieces)}; parse reads text")
        slots = [piece.name for piece in self.pieces if isinstance(piece, Slot)]
        fields = {piece.name for piece in self.pieces if isinstance(piece, Field)}
        if not slots:
            raise TemplateError("a template needs at least one slot, such as {answer:16}")
        for name in slots:
            if slots.count(name) > 1:
                raise TemplateError(f"there are two slots called {name!r}; give each a name of its own")
            if name in fields:
                raise TemplateError(f"{name!r} is both a slot and a field; rename one")
        if (slot := self.growing) is not None and len(self.ranged) > 1:
            other = next(one for one in self.ranged if one is not slot)
            raise TemplateError(
                f"slot {slot.name!r} grows, and then all others need one length; {other.name!r} has none, "
                f"{_written(other)}: write one, as in {{{other.name}:{other.length}}}"
            )
        if self.growing is None and (count := prod(len(slot.lengths) for slot in self.ranged)) > MOST_CANDIDATES:
            ranges = " and ".join(f"{_written(slot)} ({len(slot.lengths)})" for slot in self.ranged)
            raise TemplateError(
                f"the slots of unknown length have {count:,} lengths together, of {ranges}, and each is a run of its "
                f"own; at most {MOST_CANDIDATES} are tried: narrow the ranges"
            )

    @property
    def ranged(self) -> tuple[Slot, ...]:
        """The slots whose length is not known, in order."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Slot) and piece.shortest is not None)

    @property
    def growing(self) -> Slot | None:
        """The slot that grows, if there is one."""
        return next((slot for slot in self.ranged if slot.grows), None)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots, in order."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, Slot))

    @property
    def blind(self) -> tuple[str, ...]:
        """Names of the slots that need not see the text after them, in order."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, Slot) and piece.blind)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in order of first use."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces if isinstance(piece, Field)))

    def __str__(self) -> str:
        """The text that parses back."""
        return "".join(_written(piece) for piece in self.pieces)

    def candidates(self, tokenizer: Tokenizer, given: Mapping[str, str] | None = None) -> tuple[Template, ...]:
        """The templates that it means, shortest slots first: one of each length of each slot of unknown length.

        A slot that the row brings has the length that its text takes. Without slots of unknown length: this one alone.
        """
        given = given or {}
        ways = [
            [
                attrs.evolve(piece, length=length, shortest=None, grows=False)
                for length in self._lengths(piece, given, tokenizer)
            ]
            if isinstance(piece, Slot)
            else [piece]
            for piece in self.pieces
        ]
        return tuple(Template(pieces) for pieces in product(*ways))

    def _lengths(self, slot: Slot, given: Mapping[str, str], tokenizer: Tokenizer) -> Sequence[int]:
        if slot.shortest is None or slot.name not in given:
            return slot.lengths
        text = given[slot.name]
        turn = tokenizer.turn_end if slot is self.pieces[-1] and self.has_turns(tokenizer) else ()
        wanted = len(tokenizer.encode(text)) + len(turn) if text else len(turn)
        return [min(max(wanted, slot.shortest), slot.length)]

    def row(self, tokenizer: Tokenizer, texts: Mapping[str, str], given: Mapping[str, str] | None = None) -> Encoded:
        """The tokens of one row; `texts`: of the fields, `given`: of slots that the row brings the content of.

        Raises `TemplateError` if they are not the template's, or what is given does not fit its slot.
        """
        if not hasattr(tokenizer, "encode"):
            raise TypeError(f"a row is written by a model's tokenizer; got {type(tokenizer).__name__}")
        given = given or {}
        if not (isinstance(texts, Mapping) and isinstance(given, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance]
            wrong = given if isinstance(texts, Mapping) else texts  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"what a row brings is a mapping of names to texts; got {shown(wrong)}")
        blanks = sum(piece.length for piece in self.pieces if isinstance(piece, Slot))
        if blanks > _MOST:
            raise TemplateError(f"the slots have {blanks:,} positions together; no model takes as many: shorten them")
        for name in self.fields:
            if name not in texts:
                raise TemplateError(f"the template asks for {name!r}, which the row lacks; it has: {_names(texts)}")
        for name, value in texts.items():
            if name not in self.fields:
                kind = "a slot, which the model fills" if name in self.slots else "not a field of the template"
                raise TemplateError(f"{name!r} is {kind}; fields here: {_names(self.fields)}")
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TemplateError(f"field {name!r} must be text; got {type(value).__name__}")
        self.check_given(given)
        if self.ranged:
            one, *others = self.candidates(tokenizer, given)
            if others:
                open_ = next(slot for slot in self.ranged if slot.name not in given)
                raise TemplateError(
                    f"slot {open_.name!r} has no one length, {_written(open_)}: only what samples finds it "
                    f"(sample, run, bench); write one length here, as in {{{open_.name}:{open_.length}}}"
                )
            return one.row(tokenizer, texts, given)
        start = list(tokenizer.start)
        # chat templates write it themselves
        tokens: list[int] = [] if self._opening(tokenizer)[: len(start)] == start else start
        number: list[int] = [-1] * len(tokens)
        blank: list[bool] = [False] * len(tokens)
        plain = ""
        for piece in (*self.pieces, None):
            if isinstance(piece, Field):
                plain += texts[piece.name]
                continue
            if isinstance(piece, Text):
                for part in parted(piece.text, tokenizer.special):
                    if part not in tokenizer.special:
                        plain += part
                        continue
                    tokens += [*tokenizer.encode(plain), tokenizer.special_id(part)]
                    plain = ""
                continue
            # text on both sides of a field is one text to the tokenizer; a slot parts it
            tokens += tokenizer.encode(plain) if plain else []
            plain = ""
            number += [-1] * (len(tokens) - len(number))
            blank += [False] * (len(tokens) - len(blank))
            if piece is not None:
                content = self.content(piece.name, given[piece.name], tokenizer) if piece.name in given else None
                tokens += content or [tokenizer.mask_id] * piece.length
                number += [self.slots.index(piece.name)] * piece.length
                blank += [content is None] * piece.length
        return Encoded(tokens, number, blank)

    def check_given(self, given: Mapping[str, object]) -> None:
        """Raises `TemplateError` unless these are texts of slots that there are."""
        if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"what is given is a mapping of slots to texts; got {shown(given)}")
        for name, value in given.items():
            if name not in self.slots:
                kind = "a field" if name in self.fields else "not a slot of the template"
                raise TemplateError(f"{name!r} cannot be given: it is {kind}; slots here: {_names(self.slots)}")
            if not isinstance(value, str):
                raise TemplateError(f"what is given for slot {name!r} must be text; got {type(value).__name__}")

    def _opening(self, tokenizer: Tokenizer) -> list[int]:
        """The special tokens that it begins with."""
        match self.pieces[0]:
            case Text(text=text):
                opening = takewhile(lambda part: part in tokenizer.special, parted(text, tokenizer.special))
                return [tokenizer.special_id(part) for part in opening]
            case _:
                return []

    def content(self, slot: str, text: str, tokenizer: Tokenizer) -> list[int]:
        """The tokens that fill a slot with a text: its own, then end tokens; `TemplateError` if it does not fit.

        Where the template is a chat, the text of its last slot ends the assistant's turn, as such models are trained.
        """
        piece = next(piece for piece in self.pieces if isinstance(piece, Slot) and piece.name == slot)
        length, tokens = piece.length, tokenizer.encode(text) if text else []
        if len(tokens) > length:
            raise TemplateError(
                f"slot {slot!r} has {length} positions, but what is given for it is {len(tokens)} tokens: "
                f"{text!r:.60}; lengthen the slot, or give less"
            )
        whole = filled_up(tokens, length, tokenizer, turn=piece is self.pieces[-1] and self.has_turns(tokenizer))
        if len(whole) < length:
            raise TemplateError(
                f"what is given for slot {slot!r} is {len(tokens)} tokens, the slot has {length}, and the model "
                "has no end token to fill up with; make the slot as long as what is given"
            )
        return whole

    def has_turns(self, tokenizer: Tokenizer) -> bool:
        """Whether its text ends a turn of a chat."""
        ending = [text for text in tokenizer.special if tokenizer.special_id(text) in tokenizer.turn_end[-1:]]
        return any(isinstance(piece, Text) and text in piece.text for piece in self.pieces for text in ending)

    def canvas(
        self,
        tokenizer: Tokenizer,
        rows: Sequence[Mapping[str, str]],
        ids: Sequence[int | str] | None = None,
        given: Sequence[Mapping[str, str]] | None = None,
    ) -> Canvas:
        """A canvas with one row per mapping of field names to texts; `ids` default to 0, 1, 2, …

        `given`: for every row the texts of slots that it brings, by name; none by default.
        """
        if given is not None and (isinstance(given, str | Mapping) or not isinstance(given, Sequence)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"given is a list with a mapping of slots to texts for every row; got {shown(given)}")
        if given is not None and len(given) != len(rows):
            raise TemplateError(f"{len(rows)} rows need as many mappings of what is given; got {len(given)}")
        self._check_rows(tokenizer, rows)
        nothing: dict[str, str] = {}
        brought = given or [nothing] * len(rows)
        encoded = [self.row(tokenizer, texts, slots) for texts, slots in zip(rows, brought, strict=True)]
        tokens, slot, blank = ([getattr(row, name) for row in encoded] for name in ("tokens", "slot", "blank"))
        return Canvas.of_rows(tokens, slot, self.slots, tokenizer.mask_id, ids, blank, self.blind)

    def _check_rows(self, tokenizer: object, rows: object) -> None:
        """Refuses what newcomers pass first: a model, a text, one mapping, a list of texts."""
        if not hasattr(tokenizer, "encode"):
            raise TypeError(
                f"a canvas takes the model's tokenizer, template.canvas(model.tokenizer, rows); "
                f"got {type(tokenizer).__name__}"
            )
        field = next(iter(self.fields), "prompt")
        example = f"give a list with a mapping of fields to texts for every row, such as [{{{field!r}: '…'}}]"
        shown = _short(rows)
        if isinstance(rows, str | Mapping) or not isinstance(rows, Sequence):
            raise TemplateError(f"the rows of a canvas cannot be {shown}; {example}")
        for number, row in enumerate(cast("Sequence[object]", rows)):
            if not isinstance(row, Mapping):
                raise TemplateError(f"row {number} is {_short(row)}; {example}")


def _short(value: object) -> str:
    return f"the {type(value).__name__} {shown(value, 60)}"


def _written(piece: Text | Field | Slot) -> str:
    match piece:
        case Text(text=text):
            return text.replace("{", "{{").replace("}", "}}")
        case Field(name=name):
            return f"{{{name}}}"
        case Slot(name=name, length=length, blind=blind, shortest=shortest, grows=grows):
            return f"{{{name}:{'' if shortest is None else f'{shortest}-'}{length}{'+' * grows}{':blind' * blind}}}"


def _hole(inside: str, text: str, column: int) -> Field | Slot:
    name, colon, length = inside.partition(":")
    if not _NAME.fullmatch(name):
        raise _fault(
            f"{name!r} is no name (a to z, _, digits and -, the first no digit); write {{{{ for a literal brace",
            text,
            column,
        )
    if not colon:
        return Field(name)
    length, colon, word = length.partition(":")
    if colon and word != "blind":
        raise _fault(
            f"after the length of slot {name!r} only the word blind may stand, as in {{{name}:16:blind}}", text, column
        )
    grows, length = length.endswith("+"), length.removesuffix("+")
    if grows and _is_number(length):
        raise _fault(
            f"slot {name!r} grows, but how far? Write the fewest and the most positions, as in "
            f"{{{name}:{length}-{4 * int(length[:_DIGITS])}+}}",
            text,
            column,
        )
    shortest, _, longest = length.partition("-")
    ranged = bool(longest) and _is_number(shortest)
    numbers = (shortest, longest) if ranged else (length,)
    if any(_is_number(number) and len(number) > _DIGITS for number in numbers):
        raise _fault(f"slot {name!r} is too long; a length has at most {_DIGITS} digits", text, column)
    if not all(_is_number(number) and int(number) > 0 for number in numbers):
        example = f"{{{name}:1-6}}, the fewest and the most positions" if ranged else f"{{{name}:16}}"
        raise _fault(f"slot {name!r} needs a length of 1 or more, as in {example}", text, column)
    if not ranged:
        return Slot(name, int(length), bool(colon))
    if int(shortest) >= int(longest):
        raise _fault(
            f"slot {name!r} goes from {shortest} to {longest} positions; write the fewest first, and one length as in "
            f"{{{name}:{longest}}}",
            text,
            column,
        )
    return Slot(name, int(longest), bool(colon), int(shortest), grows)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _names(names: Mapping[str, str] | Sequence[str]) -> str:
    return ", ".join(map(str, names)) or "none"


def _fault(message: str, text: str, column: int) -> TemplateError:
    start = text.rfind("\n", 0, column) + 1
    end = text.find("\n", column)
    return TemplateError(pointed(message, text[start : len(text) if end < 0 else end], column - start))
