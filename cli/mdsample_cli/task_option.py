"""How a task is named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import attrs
from typer import Option

from mdsample_cli.errors import UsageError
from mdsample_cli.files import text_or_file
from mdsample_cli.groups import OptionGroup
from mdsample_cli.options import MODEL, ModelOptions

if TYPE_CHECKING:
    from mdsample.tasks.catalog import Task

#: embedded tasks, and the embedded models made for them
MODELS = {
    "tiny-gsm": "tiny-gsm",
    "sudoku6": "tiny-sudoku6",
    "sudoku6-hard": "tiny-sudoku6",
    "sudoku": "tiny-sudoku",
    "sudoku-hard": "tiny-sudoku",
}
#: one model for a task
TaskModel = Annotated[
    str | None,
    Option(
        *("--model", "-m"),
        metavar="NAME",
        help=f"Default: the task's own, or {MODEL}.",
        rich_help_panel=ModelOptions.panel,
    ),
]


def default_model(task: Task) -> str:
    """The embedded model that is made for the task, or the one for everything else."""
    return MODELS.get(task.name, MODEL)


@attrs.frozen(kw_only=True)
class TaskOptions(OptionGroup):
    """Problems with right answers."""

    panel: ClassVar = "Task"

    task: Annotated[
        str, Option(metavar="NAME", help=f"The problems: {', '.join(MODELS)}, gsm8k, math500, or a .jsonl file.")
    ] = "tiny-gsm"
    problems: Annotated[Path | None, Option(metavar="FILE", help="The published file of gsm8k or math500.")] = None
    answer_field: Annotated[str, Option(metavar="KEY", help="Key of the right answer in a .jsonl file of yours.")] = (
        "answer"
    )
    limit: Annotated[int | None, Option(min=1, metavar="N", help="Only the first N problems. Default: all.")] = None

    def open(self, template: str | None, answers: bool = True) -> Task:
        """The task; `answers` says whether a file must hold the right ones. `UsageError` if options do not fit."""
        from mdsample.core.sources import is_table
        from mdsample.tasks import datasets
        from mdsample.tasks.catalog import TASKS

        name = self.task
        if name in ("gsm8k", "math500"):
            if self.problems is None:
                raise UsageError(f"--task {name} needs the published file: --problems FILE (JSON lines)")
            return (datasets.gsm8k if name == "gsm8k" else datasets.math500)(self.problems)
        if self.problems is not None:
            raise UsageError("--problems is the published file of gsm8k or math500; a file of yours is --task FILE")
        if name in TASKS:
            return TASKS[name]
        if not (name.lower().endswith((".jsonl", ".ndjson", ".json")) or is_table(name)):
            known = ", ".join(TASKS)
            raise UsageError(f"there is no task {name!r}; there are: {known}, gsm8k, math500, and files (.jsonl)")
        if template is None:
            raise UsageError(
                "a file of yours needs the template that it is put into: --template '{prompt} {answer:16}'"
            )
        return datasets.own(Path(name), text_or_file(template), self.answer_field if answers else None)
