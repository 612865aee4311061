"""Examples: finished texts to train on, read from JSON lines.

Three kinds of lines are read: a row with a text for every field and slot of the template under its name, `messages` in
the place of fields as `run` takes them; a record of `mdsample run --output` (its `slots`); a record of `mdsample
traces` (each of its `traces` that was kept, one example).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs

from mdsample.core.sources import Source
from mdsample.core.template import Template
from mdsample.core.tokens import Tokenizer
from mdsample.errors import RecordError, TemplateError
from mdsample.models.chat import Chats, Messages, messages_of
from mdsample.tasks.columns import column, parted
from mdsample.tasks.files import row_object


@attrs.frozen
class Example:
    """One finished row."""

    tokens: list[int]
    #: number of the slot of each position, −1 for fixed text
    slot: list[int]


@attrs.frozen
class Examples:
    """What a file holds."""

    examples: list[Example]
    #: why lines, or traces in them, were left out
    faults: list[str]


def read_examples(
    data: bytes | Source,
    template: Template,
    tokenizer: Tokenizer,
    name: str = "",
    written: Mapping[str, str] | None = None,
    max_length: int | None = None,
    chats: Chats | None = None,
) -> Examples:
    """The examples in the bytes of JSON lines, or in the rows of a source; `name` is the file's, for messages.

    A slot's text is followed by end tokens up to the slot's length. `written`: how texts are written into their slots,
    `{}` being the text, as in `{"answer": " {}"}`; by default as they are. `chats`: where messages are put, by default
    around `template`. What does not fit is left out and told as a fault. Raises `RecordError` if nothing is left.
    """
    forms, talks = written or {}, chats or Chats(tokenizer, name or "the model", template)
    for slot, form in forms.items():
        template.check_given({slot: form})
        if form.count("{}") != 1:
            raise TemplateError(f"slot {slot!r} is written as {form!r}; write {{}} once, where its text goes")
    examples, faults = list[Example](), list[str]()
    for where, raw in _lines(data) if isinstance(data, bytes) else ((row.where, row.value) for row in data):
        try:
            # records of a row that failed hold nothing to learn
            texts = list(_texts(row_object(raw) if isinstance(raw, bytes) else cast("Any", raw), template))
        except RecordError as fault:
            faults.append(f"{where}: {fault}")
            continue
        for messages, fields, slots in texts:
            try:
                layout, fields = talks.placed(template, fields, messages)
                given = {slot: forms.get(slot, "{}").replace("{}", slots[slot]) for slot in template.slots}
                row = layout.row(tokenizer, fields, given)
                if max_length is not None and len(row.tokens) > max_length:
                    raise TemplateError(f"it has {len(row.tokens)} tokens; the model takes at most {max_length}")
            except TemplateError as fault:
                faults.append(f"{where}: {fault}")
                continue
            examples.append(Example(row.tokens, row.slot))
    if not examples:
        why = faults[0] if faults else "it is empty"
        raise RecordError(f"{name or 'the data'} holds no example that can be used: {why}")
    return Examples(examples, faults)


def _lines(data: bytes) -> Iterator[tuple[str, bytes]]:
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if raw.strip():
            yield f"line {number}", raw


def _texts(line: Mapping[str, Any], template: Template) -> Iterator[tuple[Messages, Mapping[str, str], dict[str, str]]]:
    """Messages, and texts of fields and of slots, for each example of a line."""
    line = dict(parted(line, template.slots))
    if line.keys() == {"id", "error"}:
        raise RecordError(f"the record is of a row that failed: {line['error']}")
    messages = messages_of(line, template.fields) if "messages" not in template.slots else ()
    fields = {} if messages else _named(line | _object(line.get("fields")), template.fields, "the row")
    if "traces" in line:
        traces: object = line["traces"]
        if not isinstance(traces, list):
            raise RecordError(f"'traces' must be a list; got {traces!r:.40}")
        for trace in map(_object, cast("list[object]", traces)):
            if trace.get("kept", True):
                yield messages, fields, _named(_object(trace.get("slots")), template.slots, "a trace")
        return
    yield messages, fields, _named(line | _object(line.get("slots")), template.slots, "the row")


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _named(row: Mapping[str, object], names: tuple[str, ...], what: str) -> dict[str, str]:
    """Texts of these names; whole numbers are written out."""
    texts = dict[str, str]()
    for name in names:
        value = row.get(key := column(row, name, names))
        if key not in row:
            raise RecordError(f"{what} lacks {name!r}; it has: {', '.join(row) or 'nothing'}")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise RecordError(f"{name!r} must be text or a whole number; got {value!r:.40}")
        texts[name] = str(value)
    return texts
