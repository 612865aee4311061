"""Records: what is asked, and answers written to a file.

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
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from mdsample.core.files import Growing
from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.jobs.lines import OPENING, last_line, line, parsed
from mdsample.models.cache import cache_text
from mdsample.models.chat import MESSAGES, Messages
from mdsample.models.denoiser import Denoiser
from mdsample.policy.complete import as_run
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation

Record = dict[str, Any]
#: what decides a record besides its request: equal in all records of one job
FINGERPRINT = ("model", "revision", "cache", "policy", "template", "seed", "speculate", "watch", "n", "keep", "method")


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


@attrs.frozen
class Left:
    """Requests without those that are answered; read anew each time."""

    requests: Iterable[Request]
    answered_ids: frozenset[int | str]
    #: how many there are in all, and how many of them are answered
    total: int
    answered: int

    def __len__(self) -> int:
        """How many are left."""
        return self.total - self.answered

    def __iter__(self) -> Iterator[Request]:
        """What is left, in order."""
        return (request for request in self.requests if request.error or request.id not in self.answered_ids)


class Output(Growing):
    """A file of records that a job resumes from; a context manager. One line a row, written when the row is done."""

    def __init__(self, path: Path, fingerprint: Record) -> None:
        """Reads what is there; raises `RecordError` if that is not a beginning of this job."""
        self._done: dict[int | str, bytes] = {}
        super().__init__(path, lambda file: self._resume(file, fingerprint))

    def left(self, requests: Iterable[Request]) -> Left:
        """The requests that the file does not answer yet; `RecordError` if it answers one of another text.

        `requests` is read once now, and once more for every time that one reads what is left.
        """
        total = answered = 0
        for request in requests:
            total += 1
            if request.error or request.id not in self._done:
                continue
            answered += 1
            scored = {"candidates": request.choices, "labels": request.labels}
            said = asked(request)
            # most records do not say what is expected
            if self._done[request.id] not in (
                _text_digest(said, scored),
                _text_digest(said | {"expected": request.expected}, scored),
            ):
                raise RecordError(
                    f"{self._path} answers row {request.id!r} of another input, with another text; "
                    "give another --output, or the input that it was written with"
                )
        return Left(requests, frozenset(self._done), total, answered)

    def write(self, record: Record) -> None:
        """Appends a record."""
        self.append(line(record).encode() + b"\n")

    def _resume(self, file: BinaryIO, fingerprint: Record) -> Iterator[bytes] | None:
        if last := last_line(file):
            cut_off = last.startswith(OPENING) and (parsed(last) is None or _parsed(last) is not None)
            if not (cut_off or OPENING.startswith(last)):
                raise RecordError(f"{self._path} is not a file of records, and is left alone; give another --output")
        dropped = set[int]()
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                dropped.add(number)
                continue
            record = _parsed(raw)
            if record is None:
                raise RecordError(f"line {number} of {self._path} is not a job record; give another --output")
            if record.keys() == {"id", "error"}:
                dropped.add(number)
                continue
            self._check(record, fingerprint)
            self._done[record["id"]] = _text_digest(record, _scored(record))
        if not dropped:
            return None
        file.seek(0)
        return (raw for number, raw in enumerate(file, 1) if number not in dropped)

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


def _scored(record: Record) -> Record:
    """The texts that a record scores, in one slot or by slot."""
    by_slot: dict[str, Record] = record.get("slots", {}) if "method" in record else {}
    return {
        "candidates": [candidate["text"] for candidate in record.get("candidates", ())],
        "labels": {slot: [one["text"] for one in scores["candidates"]] for slot, scores in by_slot.items()},
    }


def _text_digest(record: Record, scored: Record) -> bytes:
    """What a record says of the texts of its request, in 16 bytes: of many rows no more is kept in memory."""
    said = [record.get(name) for name in ("prompt", "fields", MESSAGES, "given", "expected")]
    text = json.dumps([*said, scored], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).digest()


def _parsed(raw: bytes) -> Record | None:
    """The record that a line holds, an error or an answer with what made it; `None` if it holds none."""
    record = parsed(raw) or {}
    made = record.keys() >= {"model", "template", "seed"} and not record.keys().isdisjoint(("policy", "method"))
    complete = record.keys() == {"id", "error"} or made
    return record if complete and type(record.get("id")) in (int, str) else None
