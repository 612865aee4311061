"""Answers: a file of JSON lines that keeps every answer of a benchmark, so that none is computed twice.

Each line carries all that decides it (task, model, policy, template, seed, prompt …), so one file may hold any number
of models and policies. Lines of other comparisons are left alone; a last line that a kill cut off is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from mdsample.core.files import Growing, read_whole
from mdsample.errors import RecordError
from mdsample.jobs.lines import OPENING, finite, line, parsed

#: what decides an answer besides its problem
KEY = ("task", "model", "backend", "cache", "policy", "template", "seed", "speculate")


@attrs.frozen
class Answered:
    """One problem answered by one policy."""

    id: int | str
    #: what the task read out of the row, and what is right
    answer: str
    expected: str
    solved: bool
    #: all that the model wrote
    text: str
    nfe: int
    steps: int
    #: passes that followed one another; in records from before it was kept, the steps
    rounds: int
    #: blanks filled
    filled: int
    error_bound: float
    tv_bound: float
    #: wall-clock time since the answer before it, or since the start
    seconds: float
    #: what the answer was extracted from, and how; `None` where the task reads answers in one way, or before it said so
    source: str | None = None
    extract: str | None = None
    #: digits that tell what the model was asked; `None` before records said it
    asked: str | None = None


_BOUNDS = ("error_bound", "tv_bound")
_FIELDS = tuple(field.name for field in attrs.fields(Answered))
#: the types of JSON that a line has; an infinite bound is null
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(KEY, (str,)),
    "seed": (int,),
    "id": (int, str),
    **dict.fromkeys(("answer", "expected", "text"), (str,)),
    "solved": (bool,),
    **dict.fromkeys(("nfe", "steps", "rounds", "filled"), (int,)),
    **dict.fromkeys(_BOUNDS, (int, float, type(None))),
    "seconds": (int, float),
}
_OPTIONAL = ("source", "extract", "asked")
_Key = tuple[object, ...]


def solved(path: Path, expected: Mapping[int | str, str]) -> dict[int | str, bool]:
    """Whether each of these problems was solved, for those that a file answers; `expected`: right answers by id.

    Raises `RecordError` if that is not a file of answers, has answers of several models, policies or templates, or to
    other problems.
    """
    try:
        runs = _read(path, read_whole(path))
    except OSError as fault:
        raise RecordError(f"cannot read {path}: {fault.strerror or fault}") from fault
    if len(runs) != 1:
        differ = [name for name, values in zip(KEY, zip(*runs, strict=True), strict=False) if len(set(values)) > 1]
        several = f"answers of {len(runs)} comparisons, which differ in {', '.join(differ)}" if runs else "no answers"
        raise RecordError(
            f"{path} holds {several}; which problems were solved is asked of one: give a file that `bench --output` "
            "wrote for it alone"
        )
    answers = _to(path, next(iter(runs.values())), expected)
    if not answers:
        raise RecordError(f"{path} answers none of these {len(expected)} problems; give a file of answers to them")
    return {name: answered.solved for name, answered in answers.items()}


class Answers(Growing):
    """The file; a context manager."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; raises `RecordError` if that is not a file of answers."""
        self._found: dict[_Key, dict[int | str, Answered]] = {}
        super().__init__(path, self._read)

    def _read(self, file: BinaryIO) -> list[bytes] | None:
        data = file.read()
        self._found = _read(self._path, data)
        whole = data.rfind(b"\n") + 1
        return None if whole == len(data) else [data[:whole]]

    def found(
        self, key: Mapping[str, object], expected: Mapping[int | str, str], asked: Mapping[int | str, str]
    ) -> dict[int | str, Answered]:
        """Answers to these problems under `key`; `RecordError` if one was judged by another right answer.

        So if the model was asked something else, as with other examples before the problem.
        """
        found = _to(self._path, self._found.get(tuple(key[name] for name in KEY), {}), expected)
        for name, answered in found.items():
            if answered.asked not in (None, asked[name]):
                raise RecordError(
                    f"{self._path} answers problem {name!r} to another prompt: the problem, the examples before it or "
                    "the chat template differ; give another file"
                )
        return found

    def write(self, key: Mapping[str, object], answered: Answered, **more: object) -> None:
        """Appends an answer."""
        fields = attrs.asdict(answered) | {name: finite(getattr(answered, name)) for name in _BOUNDS}
        fields = {name: value for name, value in fields.items() if name not in _OPTIONAL or value is not None}
        record = {**fields, **{name: key[name] for name in KEY if name != "speculate" or key[name]}, **more}
        self.append(line(record).encode() + b"\n")


def _read(path: str | Path, data: bytes) -> dict[_Key, dict[int | str, Answered]]:
    """Answers by what decides them and by id; a last line that a kill cut off is left out."""
    *lines, last = data.split(b"\n")
    answers: dict[_Key, dict[int | str, Answered]] = {}
    for number, raw in enumerate(lines, 1):
        record = _parsed(raw)
        if record is None:
            raise RecordError(f"line {number} of {path} is not a benchmark answer; give another file")
        key = tuple(record[name] for name in KEY)
        record |= {name: math.inf for name in _BOUNDS if record[name] is None}
        answered = Answered(**{name: record[name] for name in _FIELDS if name in record})
        answers.setdefault(key, {})[answered.id] = answered
    if last and not (last.startswith(OPENING) or OPENING.startswith(last)):
        raise RecordError(f"{path} is not a file of answers, and is left alone; give another file")
    return answers


def _to(
    path: str | Path, answers: Mapping[int | str, Answered], expected: Mapping[int | str, str]
) -> dict[int | str, Answered]:
    """The answers to these problems; `RecordError` if one was judged by another right answer."""
    for name, answered in answers.items():
        if name in expected and answered.expected != expected[name]:
            raise RecordError(
                f"{path} answers problem {name!r} of other data: {answered.expected!r} is right there, "
                f"{expected[name]!r} here; give another file"
            )
    return {name: answered for name, answered in answers.items() if name in expected}


def _parsed(raw: bytes) -> dict[str, Any] | None:
    record = parsed(raw) or {}
    record = {"speculate": "", "rounds": record.get("steps"), **record}
    required = all(name in record and type(record[name]) in kinds for name, kinds in _TYPES.items())
    return record if required and all(type(record.get(name, "")) is str for name in _OPTIONAL) else None
