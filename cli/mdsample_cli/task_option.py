"""How a task is named on the command line: options that commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdsample_cli import options
from mdsample_cli.options import Wrong

if TYPE_CHECKING:
    from mdsample.tasks.catalog import Task as OpenTask

#: embedded tasks, and the embedded models made for them
OWN = {
    "tiny-gsm": "tiny-gsm",
    "sudoku6": "tiny-sudoku6",
    "sudoku6-hard": "tiny-sudoku6",
    "sudoku": "tiny-sudoku",
    "sudoku-hard": "tiny-sudoku",
}

Task = Annotated[
    str, typer.Option(metavar="NAME", help=f"The problems: {', '.join(OWN)}, gsm8k, math500, or a .jsonl file.")
]
Problems = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The published file of gsm8k or math500.", show_default=False)
]
AnswerField = Annotated[str, typer.Option(metavar="KEY", help="The right answer in a file of yours.")]


def open_task(name: str, problems: Path | None, template: str | None, answer_field: str | None) -> OpenTask:
    """The task of this name; `Wrong` if options do not go together."""
    from mdsample.tasks import datasets
    from mdsample.tasks.catalog import TASKS

    if name in ("gsm8k", "math500"):
        if problems is None:
            raise Wrong(f"--task {name} needs the published file: --problems FILE (JSON lines)")
        return (datasets.gsm8k if name == "gsm8k" else datasets.math500)(problems)
    if problems is not None:
        raise Wrong("--problems is the published file of gsm8k or math500; a file of yours is --task FILE")
    if name in TASKS:
        return TASKS[name]
    if not name.endswith((".jsonl", ".ndjson", ".json")):
        raise Wrong(f"there is no task {name!r}; there are: {', '.join(TASKS)}, gsm8k, math500, and files (.jsonl)")
    if template is None:
        raise Wrong("a file of yours needs the template that it is put into: --template '{prompt} {answer:16}'")
    text = options.read_text(template[1:]).removesuffix("\n") if template.startswith("@") else template
    return datasets.own(Path(name), text, answer_field)
