"""Requests: the rows of a source as what is asked of a template, read one by one and again from the beginning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs

from mdsample.core.sources import Raw, Source, kind, source_of
from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.jobs.lines import finite
from mdsample.jobs.records import Request
from mdsample.models.chat import MESSAGES, messages_of
from mdsample.tasks.columns import column, parted

#: how deep a value of a row may be nested to be carried into its record
_DEEPEST = 100


def read_requests(
    data: bytes,
    template: Template,
    name: str = "",
    given: Mapping[str, str] | None = None,
    choices: str | None = None,
    expected: str | None = None,
) -> list[Request]:
    """The requests in a file's bytes; `name` is the file's, for its ending and for messages. All else as `Requests`.

    `.jsonl`, `.ndjson` and `.json` are JSON lines, `.txt` is plain text; anything else is JSON lines if it begins with
    `{`. Blank lines are skipped.
    """
    keys: Mapping[str, str] = given or {}
    source = source_of(data, name)
    return list(Requests(source, template, name=name, keys=keys, choices=choices, expected=expected))


@attrs.frozen
class Requests:
    """What the rows of a source ask; each time one reads them they are read anew, and only one is in memory.

    A row without `id` gets its number, from 0. A field, and an answer, is also found under the name that data sets give
    it (`mdsample.tasks.columns`). What a row lacks is its error. Raises `RecordError` at once for a source that does
    not fit as a whole.
    """

    source: Source
    template: Template
    #: the source's, for messages
    name: str = attrs.field(default="", kw_only=True)
    #: slots that rows bring the content of, and in which column it stands (text, or a whole number)
    keys: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    #: how that is written into its slot, `{}` being the content
    written: str = attrs.field(default="{}", kw_only=True)
    #: what other slots hold in every row
    fixed: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    #: the column in which texts to be scored are listed, or a mapping of slots to such lists
    choices: str | None = attrs.field(default=None, kw_only=True)
    #: the column of the right answer
    expected: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Plain text has one field, and no columns."""
        if self.source.keyed:
            return
        if len(self.template.fields) != 1:
            raise RecordError(
                "plain text fills a template of one field, but this one has: "
                f"{', '.join(self.template.fields) or 'none'}; give JSON lines"
            )
        if self.keys or self.choices or self.expected:
            raise RecordError(f"keys are those of JSON objects, but {self.name or 'the input'} is plain text")

    def __len__(self) -> int:
        """How many rows the source has."""
        return len(self.source)

    def __iter__(self) -> Iterator[Request]:
        """From the first row on; a second row with an id is an error."""
        seen = set[int | str]()
        for number, raw in enumerate(self.source):
            request = self._request(raw, number)
            if not request.error:
                if request.id in seen:
                    request = Request(request.id, error=f"there is an earlier row with the id {request.id!r}")
                seen.add(request.id)
            if request.error:
                request = attrs.evolve(request, error=f"{raw.where}: {request.error}")
            elif self.fixed or self.written != "{}":
                brought = {slot: self.written.replace("{}", text) for slot, text in request.given.items()}
                request = attrs.evolve(request, given={**self.fixed, **brought})
            yield request

    def _request(self, raw: Raw, number: int) -> Request:
        if raw.value is None:
            return Request(number, error=raw.fault)
        if isinstance(raw.value, str):
            return Request(number, {self.template.fields[0]: raw.value})
        return _request(raw.value, number, self.template, self.keys, self.choices, self.expected)


def _request(
    row: Mapping[str, Any],
    number: int,
    template: Template,
    given: Mapping[str, str],
    choices: str | None,
    expected: str | None,
) -> Request:
    name = row.get("id", number)
    if isinstance(name, bool) or not isinstance(name, int | str):
        return Request(number, error=f"'id' must be text or a whole number; got {kind(name)}")
    if isinstance(name, str) and not _is_unicode(name):
        return Request(number, error="'id' holds half of a surrogate pair, which is not valid unicode")
    # a key that is named for another purpose serves that
    named = {*given.values(), expected, choices}
    of_template = template.fields
    fields, asked_for = parted(row, named), {*of_template, *(key for key in named if key is not None)}
    keys = {key: key if key in fields else column(fields, key, asked_for) for key in asked_for}
    try:
        messages = () if MESSAGES in named else messages_of(fields, of_template)
    except RecordError as fault:
        return Request(name, error=str(fault))
    texts: dict[str, str] = {}
    for field in () if messages else of_template:
        value = fields.get(keys[field])
        if keys[field] not in fields:
            return Request(name, error=f"the row lacks {field!r}; it has: {', '.join(fields) or 'nothing'}")
        if not isinstance(value, str):
            return Request(name, error=f"{field!r} must be text; got {kind(value)}")
        texts[field] = value
    brought: dict[str, str] = {}
    wanted = [(slot, key, f"given for slot {slot!r}") for slot, key in given.items()]
    wanted += [] if expected is None else [("", expected, "the expected answer")]
    for slot, key, purpose in wanted:
        value = fields.get(keys[key])
        if keys[key] not in fields:
            return Request(name, error=f"the row lacks {key!r}, {purpose}")
        if isinstance(value, bool) or not isinstance(value, int | str):
            return Request(name, error=f"{key!r}, {purpose}, must be text or a whole number; got {kind(value)}")
        brought[slot] = str(value)
    answer = brought.pop("", None)
    listed: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...]] = {}
    if choices is not None:
        if choices not in fields:
            has = ", ".join(fields) or "nothing"
            return Request(name, error=f"the row lacks {choices!r}, the choices; it has: {has}")
        value = fields[choices]
        by_slot = isinstance(value, dict)
        for slot, there in (cast("dict[str, object]", value) if by_slot else {"": value}).items():
            entries = cast("list[object]", there) if isinstance(there, list) else [None]
            if not all(isinstance(entry, str) for entry in entries):
                whose = f" of slot {slot!r}" if by_slot else ""
                fault = f"{choices!r}, the choices{whose}, must be a list of texts; got {there!r:.60}"
                return Request(name, error=fault)
            labels[slot] = tuple(map(str, entries))
        if not labels:
            return Request(name, error=f"{choices!r}, the choices, names no slot; give slots with lists of texts")
        listed = () if by_slot else labels.pop("")
    used = {"id", *asked_for, *keys.values()} | ({MESSAGES} if messages else set[str]())
    others = {key: _kept(value) for key, value in fields.items() if key not in used}
    return Request(name, texts, answer, messages=messages, given=brought, choices=listed, labels=labels, others=others)


def _kept(value: object, depth: int = 0) -> object:
    """A value for the record: NaN and infinity, which JSON does not have, are null, and so is what is too deep."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: _kept(inner, depth + 1) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_kept(inner, depth + 1) for inner in cast("list[object]", value)]
    if isinstance(value, float):
        return finite(value)
    # dates and the like, which Parquet has and JSON has not
    return value if value is None or isinstance(value, str | int) else str(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
