"""Tasks by their names: the embedded ones, published data sets from their files, and files of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from mdsample.core.sources import is_table
from mdsample.errors import RecordError, TemplateError
from mdsample.tasks import code, datasets, puzzles
from mdsample.tasks.catalog import TASKS, Task
from mdsample.tasks.shots import Shots


@attrs.frozen
class Source:
    """Where the problems of a published data set come from, and how they are asked."""

    problems: Path
    #: solved problems before each, and the file that they are taken from; `None`: as the task has it
    shots: int | None = None
    shots_from: Path | None = None
    #: whether programs that a model writes may be run
    run_code: bool = False


#: data sets that others publish: the file is the user's
PUBLISHED: Mapping[str, Callable[[Source], Task]] = {
    "gsm8k": lambda source: datasets.gsm8k(source.problems, _shots(source, datasets.gsm8k_shots)),
    "math500": lambda source: datasets.math500(source.problems, _shots(source, datasets.math500_shots)),
    "humaneval": lambda source: code.humaneval(source.problems, source.run_code),
    "humaneval-infilling": lambda source: code.humaneval_infilling(source.problems, source.run_code),
    "mbpp": lambda source: code.mbpp(source.problems, source.run_code, 3 if source.shots is None else source.shots),
    "countdown": lambda source: puzzles.countdown(source.problems),
    "sudoku4": lambda source: puzzles.sudoku4(source.problems),
}
#: those that take examples from a file, that have their own, and that run programs
_SHOTS_FROM, _SHOTS = ("gsm8k", "math500"), ("gsm8k", "math500", "mbpp")
_RUN = ("humaneval", "humaneval-infilling", "mbpp")


def own_file(name: str) -> bool:
    """Whether a name is that of a file of one's own: JSON lines, Parquet, a saved data set."""
    return name.lower().endswith((".jsonl", ".ndjson", ".json")) or is_table(name)


def task_named(
    name: str, source: Source | None = None, template: str | None = None, answer_field: str | None = "answer"
) -> Task:
    """The task that a name means: `source` is of a published one; a file of one's own needs a `template`.

    `answer_field`: the key of the right answer in a file of one's own. Raises `RecordError` or `TemplateError`.
    """
    if name in PUBLISHED:
        if source is None:
            raise RecordError(f"{name} needs its published file (problems)")
        if source.shots is not None and name not in _SHOTS:
            raise RecordError(f"shots are for {', '.join(_SHOTS)}; leave them out with {name}")
        if source.shots_from is not None and name not in _SHOTS_FROM:
            raise RecordError(f"a file of shots is for {', '.join(_SHOTS_FROM)}; leave it out with {name}")
        if source.run_code and name not in _RUN:
            raise RecordError(f"to run code is for {', '.join(_RUN)}; leave it out with {name}")
        return PUBLISHED[name](source)
    if source is not None:
        raise RecordError(f"problems is the published file of {', '.join(PUBLISHED)}; a file of yours is the task")
    if name in TASKS:
        return TASKS[name]
    if not own_file(name):
        known = ", ".join([*TASKS, *PUBLISHED])
        raise RecordError(f"there is no task {name!r}; there are: {known}, and files (.jsonl)")
    if template is None:
        raise TemplateError("a file of yours needs the template that it is put into, as in '{prompt} {answer:16}'")
    return datasets.own(Path(name), template, answer_field)


def _shots(source: Source, read: Callable[[Path, int], Shots]) -> Shots | None:
    """The examples of a source; `None` where none are asked for."""
    if source.shots is None and source.shots_from is None:
        return None
    if source.shots_from is None or not source.shots:
        raise RecordError("shots are a number and the file that they are taken from (shots, shots_from); give both")
    return read(source.shots_from, source.shots)
