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
#: data sets that others publish
PUBLISHED = ("gsm8k", "math500", "humaneval", "humaneval-infilling", "mbpp", "countdown", "sudoku4")
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
        str,
        Option(
            metavar="NAME",
            help=f"The problems: {', '.join(MODELS)}, of a published file {', '.join(PUBLISHED)}, or a .jsonl file.",
        ),
    ] = "tiny-gsm"
    problems: Annotated[Path | None, Option(metavar="FILE", help="The file of a published data set.")] = None
    answer_field: Annotated[
        str | None,
        Option(metavar="KEY", help="Key of the right answer in a .jsonl file of yours. Default: answer."),
    ] = None
    limit: Annotated[int | None, Option(min=1, metavar="N", help="Only the first N problems. Default: all.")] = None
    shots: Annotated[
        int | None,
        Option(min=0, metavar="N", help="Solved problems before each: of gsm8k and math500; mbpp has 3 of its own."),
    ] = None
    shots_from: Annotated[
        Path | None, Option(metavar="FILE", help="The file that gsm8k's and math500's solved problems are taken from.")
    ] = None
    run_code: Annotated[
        bool,
        Option(
            "--run-code",
            metavar="",
            help="Run the programs that the model writes (humaneval, mbpp), in a child process with limits.",
        ),
    ] = False

    def open(self, template: str | None, answers: bool = True) -> Task:
        """The task; `answers` says whether a file must hold the right ones. `UsageError` if options do not fit."""
        from mdsample.tasks.catalog import TASKS
        from mdsample.tasks.named import Source, own_file, task_named

        name = self.task
        if self.answer_field is not None and not own_file(name):
            raise UsageError(f"--answer-field is for a file of yours (--task FILE), and {name} is none; leave it out")
        if name in PUBLISHED:
            if self.problems is None:
                kind = "CSV" if name == "sudoku4" else "JSON lines"
                raise UsageError(f"--task {name} needs the published file: --problems FILE ({kind})")
            return task_named(name, Source(self.problems, self.shots, self.shots_from, self.run_code))
        if self.problems is not None:
            raise UsageError(f"--problems is the file of {', '.join(PUBLISHED)}; a file of yours is --task FILE")
        if self.shots is not None or self.shots_from is not None or self.run_code:
            raise UsageError("--shots, --shots-from and --run-code are for published data sets; leave them out")
        if template is None and name not in TASKS and own_file(name):
            raise UsageError(
                "a file of yours needs the template that it is put into: --template '{prompt} {answer:16}'"
            )
        text = None if template is None else text_or_file(template)
        return task_named(name, None, text, (self.answer_field or "answer") if answers else None)
