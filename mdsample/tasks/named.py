"""Tasks by their names: the embedded ones, published data sets from their files, and files of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mdsample.errors import RecordError, TemplateError
from mdsample.tasks import datasets
from mdsample.tasks.catalog import TASKS, Task

#: data sets that others publish: the file is the user's
PUBLISHED: Mapping[str, Callable[[Path], Task]] = {"gsm8k": datasets.gsm8k, "math500": datasets.math500}
#: endings of files of one's own
_OWN = (".jsonl", ".ndjson", ".json")


def task_named(
    name: str, problems: Path | None = None, template: str | None = None, answer_field: str | None = "answer"
) -> Task:
    """The task that a name means: `problems` is the file of a published one; a file of one's own needs a `template`.

    `answer_field`: the key of the right answer in a file of one's own. Raises `RecordError` or `TemplateError`.
    """
    if name in PUBLISHED:
        if problems is None:
            raise RecordError(f"{name} needs its published file (problems)")
        return PUBLISHED[name](problems)
    if problems is not None:
        raise RecordError(f"problems is the published file of {' or '.join(PUBLISHED)}; a file of yours is the task")
    if name in TASKS:
        return TASKS[name]
    if not name.endswith(_OWN):
        known = ", ".join([*TASKS, *PUBLISHED])
        raise RecordError(f"there is no task {name!r}; there are: {known}, and files (.jsonl)")
    if template is None:
        raise TemplateError("a file of yours needs the template that it is put into, as in '{prompt} {answer:16}'")
    return datasets.own(Path(name), template, answer_field)
