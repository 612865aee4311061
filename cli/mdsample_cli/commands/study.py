"""`mdsample study`: tasks x models x policies x seeds of one file, in one command."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mdsample_cli import options
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.errors import Interrupted, UsageError, note, tell_error
from mdsample_cli.files import read_text, require_distinct, require_replaceable
from mdsample_cli.groups import grouped

if TYPE_CHECKING:
    from mdsample.evaluation.study import Cell

ANSWERS, REPORT = "answers.jsonl", "report.html"


@grouped
def study(
    *,
    file: Annotated[Path, Argument(metavar="FILE", help="The study, in TOML: tasks, models, policies, seeds.")],
    output: Annotated[
        Path | None,
        Option(
            *("--output", "-o"),
            metavar="FOLDER",
            help=f"Where {ANSWERS} and {REPORT} go; run again to resume. Default: the file's name without its ending, "
            "in the working directory.",
        ),
    ] = None,
    limit: Annotated[
        int | None, Option(min=1, metavar="N", help="Only the first N problems of each task, whatever the file says.")
    ] = None,
    several: CrewOptions,
    json: options.JsonLines = False,
) -> int:
    """Run a study: tasks x models x policies x seeds of one file, each answer kept.

    Prints accuracy against forward passes with paired differences from the baseline, and writes a report of one HTML
    page. A cell that fails is reported, and the others go on; exit code 1 then. With --json one object a cell.
    """
    from importlib.util import find_spec

    from mdsample.core.files import write_whole
    from mdsample.errors import BenchError
    from mdsample.evaluation.answers import Answers
    from mdsample.evaluation.study import cells
    from mdsample.evaluation.study_file import read_study
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.screens import CellBar, bar

    try:
        asked = read_study(read_text(str(file)), limit=limit, title=file.stem)
    except BenchError as fault:
        raise UsageError(f"{file}: {fault}") from None
    for model in asked.models:
        if several.devices is not None and model.device is not None:
            told = f"{file}: the model {model.label!r} has a device, and --devices are several; leave one of them out"
            raise UsageError(told)
        several.check(model)
    folder = Path(file.stem) if output is None else output
    if find_spec("matplotlib") is None:
        raise UsageError("the report's pictures need matplotlib: pip install 'mdsample[plot]'")
    report = folder / REPORT
    _folder(folder)
    require_distinct(FILE=file, output=folder / ANSWERS)
    require_replaceable(report, "--output", "a report", (b"<!doctype html>",))
    done: list[Cell] = []
    total = len(asked.seeds) * sum(task.limit for task in asked.tasks)
    with ExitStack() as stack:
        answers = stack.enter_context(Answers(folder / ANSWERS))
        stack.enter_context(several.joined())
        try:
            with bar() as progress:
                track = CellBar(progress, total * len(asked.models) * sum(len(rule.texts) for rule in asked.rules))
                for cell in cells(asked, answers, track.count, track.see, several.opened):
                    done.append(cell)
                    if json:
                        print(line(cell.record(asked)), flush=True)
        except KeyboardInterrupt:
            raise Interrupted("run the same command again to resume") from None
        finally:  # also what an interrupted study has computed
            if not json:
                _show(done)
    from mdsample_cli.show.report import page  # with matplotlib, which takes its time

    write_whole(report, page(asked, done).encode())
    failed = [cell for cell in done if cell.results is None]
    for cell in failed:
        tell_error(f"{cell.task}, {cell.model}: {cell.text}: {cell.error}")
    note(f"written: {folder / ANSWERS} and {report}")
    return 1 if failed else 0


def _folder(folder: Path) -> None:
    """Makes it, unless it is there."""
    from mdsample.errors import WriteError

    try:
        folder.mkdir(exist_ok=True)
    except (OSError, ValueError) as fault:
        raise WriteError(f"cannot make the folder {folder}: {getattr(fault, 'strerror', None) or fault}") from fault


def _show(cells: Sequence[Cell]) -> None:
    """A table for each task and model."""
    from mdsample_cli.show import render, study_table

    out = render.console(width=render.WIDEST)
    for task, model, group in study_table.groups(cells):
        render.show(out, render.plain(f"{study_table.place(task, model, group)}; 95 % intervals\n"))
        # error bounds stand in the report, where there is room
        rows = [[study_table.label(cell), *study_table.numbers(cell)[:-1]] for cell in group]
        render.show(out, render.table(out, study_table.COLUMNS[:-1], rows), "")
