"""Records: requests read from a file, answers written to one.

Requests come as JSON lines (the template's fields by name, or `messages`, a chat, in their place; an `id` if there is
one; other keys, a data set's gold answers say, are carried into the record under `input`), or as plain text, one prompt
a line. A request that cannot be read becomes a record with `error`; the others are answered.

Records are JSON lines. Each carries what made it (model, policy with every setting, template, seed), so a file of
records needs no header and no second file beside it: running a job again with the same file reads what is there,
refuses if it was made otherwise, drops a line that a kill cut off, and resumes with the rows that are missing or had an
error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs

from mdsample.core.files import Growing
from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.jobs.lines import OPENING, finite, line, parsed
from mdsample.models.cache import cache_text
from mdsample.models.chat import MESSAGES, Messages, messages_of
from mdsample.models.denoiser import Denoiser
from mdsample.policy.complete import as_run
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation

Record = dict[str, Any]
#: what decides a record besides its request: equal in all records of one job
FINGERPRINT = ("model", "revision", "cache", "policy", "template", "seed", "speculate", "watch", "n", "keep")

#: how deep a value of a row may be nested to be carried into its record
_DEEPEST = 100


def fingerprint(
    denoiser: Denoiser,
    sampler: Sampler,
    template: Template,
    revision: str | None,
    speculate: Speculation | None = None,
) -> Record:
    """What decides the records of any job: two runs with the same fingerprint and requests give the same ones.

    `speculate` decides their `nfe` and `rounds`, and nothing else.
    """
    return {
        "model": denoiser.name,
        **({} if revision is None else {"revision": revision}),
        "cache": cache_text(denoiser.cache),
        "policy": as_run(sampler.policy, denoiser.block),
        "template": str(template),
        "seed": sampler.seed,
        **({} if speculate is None else {"speculate": str(speculate)}),
    }


@attrs.frozen
class Request:
    """A row to answer: texts for the template's fields, or messages in their place, or why there are none."""

    id: int | str
    texts: Mapping[str, str] = attrs.field(factory=dict[str, str])
    #: a chat, whose last message is for the template's field
    messages: Messages = attrs.field(default=(), kw_only=True)
    #: texts of slots that the row brings
    given: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    #: texts to be scored
    choices: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    #: or labels to be scored, by slot
    labels: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], kw_only=True)
    #: the right answer, if it is known
    expected: str | None = None
    #: why the row cannot be answered; empty if it can
    error: str = ""
    #: what else the row said, which its record repeats
    others: Mapping[str, object] = attrs.field(factory=dict[str, object], kw_only=True)


def asked(request: Request) -> Record:
    """What a record says of its request: `prompt`, any other fields by name, slots that were given, keys of its own.

    With `messages` in the place of prompt and fields where the row has them.
    """
    others = {name: text for name, text in request.texts.items() if name != "prompt"}
    texts = {"prompt": request.texts.get("prompt", ""), **({"fields": others} if others else {})}
    return {
        **({MESSAGES: [dict(message) for message in request.messages]} if request.messages else texts),
        **({"given": dict(request.given)} if request.given else {}),
        **({"input": dict(request.others)} if request.others else {}),
    }


def read_requests(
    data: bytes,
    template: Template,
    name: str = "",
    given: Mapping[str, str] | None = None,
    choices: str | None = None,
    expected: str | None = None,
) -> list[Request]:
    """The requests in a file's bytes; `name` is the file's, for its ending and for messages.

    `given`: slots that rows bring the content of, and in which key of the JSON object it stands (text, or a whole
    number). `choices`: the key under which texts to be scored are listed, or a mapping of slots to such lists.
    `expected`: the key of the right answer.

    `.jsonl`, `.ndjson` and `.json` are JSON lines, `.txt` is plain text; anything else is JSON lines if it begins with
    `{`. Blank lines are skipped. A row without `id` gets its number, from 0. Raises `RecordError` if the file as a
    whole cannot be read.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RecordError(f"{name} is UTF-16; save it as UTF-8")
    lines = [(i, x.strip(b"\r")) for i, x in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if x.strip()]
    if not lines:
        raise RecordError(f"{name or 'the input'} holds no rows")
    ending, first = Path(name).suffix.lower(), lines[0][1].lstrip()[:1]
    if ending == ".json" and first == b"[":
        raise RecordError(f"{name} is one JSON array; give one object a line, as `jq -c '.[]' {name}` writes")
    as_json = ending in (".jsonl", ".ndjson", ".json") or (ending != ".txt" and first == b"{")
    if not as_json and len(template.fields) != 1:
        raise RecordError(
            f"plain text fills a template of one field, but this one has: {', '.join(template.fields) or 'none'}; "
            "give JSON lines"
        )
    if (given or choices or expected) and not as_json:
        raise RecordError(f"keys are those of JSON objects, but {name or 'the input'} is plain text")
    fields, seen = template.fields, set[int | str]()
    requests: list[Request] = []
    for number, (where, raw) in enumerate(lines):
        try:
            text = raw.decode()
            if as_json:
                request = _request(text, number, template, given or {}, choices, expected)
            else:
                request = Request(number, {fields[0]: text})
        except UnicodeDecodeError as fault:
            request = Request(number, error=f"this is not UTF-8 (byte {fault.start} of the line)")
        if not request.error:
            if request.id in seen:
                request = Request(request.id, error=f"there is an earlier row with the id {request.id!r}")
            seen.add(request.id)
        requests.append(attrs.evolve(request, error=f"line {where}: {request.error}") if request.error else request)
    return requests


def _request(
    text: str, number: int, template: Template, given: Mapping[str, str], choices: str | None, expected: str | None
) -> Request:
    try:
        row: object = json.loads(text)
    except (ValueError, RecursionError) as fault:
        return Request(number, error=f"this is not JSON: {fault}")
    if not isinstance(row, dict):
        return Request(number, error=f"a row must be a JSON object; got {_kind(row)}")
    fields = cast("dict[str, object]", row)
    name = fields.get("id", number)
    if isinstance(name, bool) or not isinstance(name, int | str):
        return Request(number, error=f"'id' must be text or a whole number; got {_kind(name)}")
    if isinstance(name, str) and not _is_unicode(name):
        return Request(number, error="'id' holds half of a surrogate pair, which is not valid unicode")
    # a key that is named for another purpose serves that
    named = {*given.values(), expected, choices}
    try:
        messages = () if MESSAGES in named else messages_of(fields, template.fields)
    except RecordError as fault:
        return Request(name, error=str(fault))
    texts: dict[str, str] = {}
    for field in () if messages else template.fields:
        value = fields.get(field)
        if field not in fields:
            return Request(name, error=f"the row lacks {field!r}; it has: {', '.join(fields) or 'nothing'}")
        if not isinstance(value, str):
            return Request(name, error=f"{field!r} must be text; got {_kind(value)}")
        texts[field] = value
    brought: dict[str, str] = {}
    wanted = [(slot, key, f"given for slot {slot!r}") for slot, key in given.items()]
    wanted += [] if expected is None else [("", expected, "the expected answer")]
    for slot, key, purpose in wanted:
        value = fields.get(key)
        if key not in fields:
            return Request(name, error=f"the row lacks {key!r}, {purpose}")
        if isinstance(value, bool) or not isinstance(value, int | str):
            return Request(name, error=f"{key!r}, {purpose}, must be text or a whole number; got {_kind(value)}")
        brought[slot] = str(value)
    answer = brought.pop("", None)
    listed: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...]] = {}
    if choices is not None:
        value = fields.get(choices)
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
    used = {"id", *template.fields, *named} | ({MESSAGES} if messages else set[str]())
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
    return finite(value) if isinstance(value, float) else value


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Output(Growing):
    """A file of records that a job resumes from; a context manager. One line a row, written when the row is done."""

    def __init__(self, path: Path, fingerprint: Record) -> None:
        """Reads what is there; raises `RecordError` if that is not a beginning of this job."""
        self._done: dict[int | str, Record] = {}
        super().__init__(path, lambda data: self._resume(data, fingerprint))

    def left(self, requests: Sequence[Request]) -> list[Request]:
        """The requests that the file does not answer yet; `RecordError` if it answers one of another text."""
        for request in requests:
            old, now = self._done.get(request.id), asked(request)
            if old is None or request.error:
                continue
            if any(old.get(name) != now.get(name) for name in ("prompt", "fields", MESSAGES, "given")):
                raise RecordError(
                    f"{self._path} answers row {request.id!r} of another input, with another text; "
                    "give another --output, or the input that it was written with"
                )
        return [request for request in requests if request.error or request.id not in self._done]

    def write(self, record: Record) -> None:
        """Appends a record."""
        self.append(line(record).encode() + b"\n")

    def _resume(self, data: bytes, fingerprint: Record) -> bytes:
        *lines, last = data.split(b"\n")
        cut_off = last.startswith(OPENING) and (parsed(last) is None or _parsed(last) is not None)
        if not (cut_off or OPENING.startswith(last)):
            raise RecordError(f"{self._path} is not a file of records, and is left alone; give another --output")
        kept: list[bytes] = []
        for number, raw in enumerate(lines, 1):
            record = _parsed(raw)
            if record is None:
                raise RecordError(f"line {number} of {self._path} is not a job record; give another --output")
            if record.keys() == {"id", "error"}:
                continue
            self._check(record, fingerprint)
            self._done[record["id"]] = record
            kept.append(raw)
        return b"".join(raw + b"\n" for raw in kept)

    def _check(self, record: Record, fingerprint: Record) -> None:
        differences = [
            f"\n  {name} there: {record.get(name)!r}\n  {name} now:   {fingerprint.get(name)!r}"
            for name in FINGERPRINT
            if record.get(name) != fingerprint.get(name)
        ]
        if differences:
            raise RecordError(
                f"{self._path} was written by another job; give another --output, or the settings it was made with"
                + "".join(differences)
            )


def _parsed(raw: bytes) -> Record | None:
    """The record that a line holds, an error or an answer with what made it; `None` if it holds none."""
    record = parsed(raw) or {}
    complete = record.keys() == {"id", "error"} or record.keys() >= {"model", "policy", "template", "seed"}
    return record if complete and type(record.get("id")) in (int, str) else None
