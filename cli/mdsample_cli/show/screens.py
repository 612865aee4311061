"""What is shown while rows are being answered: nothing, a bar, or the canvas as it fills."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mdsample.jobs.job import Answer, Job
from mdsample.sampling.result import Row
from mdsample.sampling.state import State
from mdsample_cli.show import render


class Screen:
    """Shows answers on stdout, and how far the job is on stderr."""

    def __init__(self, job: Job, named: bool, moving: Live | None, advance: Callable[[], None]) -> None:
        """`named` rows are shown with their ids; `moving` shows the canvas, `advance` moves a bar by one row."""
        self._job, self._named, self._moving, self._advance = job, named, moving, advance
        self._out = render.console()
        self._rows: list[Row] = []
        self.failed = 0

    def see(self, state: State) -> None:
        """The state after a step."""
        if self._moving is not None:
            self._moving.update(render.frame(state, 0, self._job.denoiser.tokenizer), refresh=True)

    def count(self, answer: Answer) -> None:
        """A row is done."""
        if answer.row is None:
            self.failed += 1
        else:
            self._rows.append(answer.row)
        self._advance()

    def show(self, answer: Answer) -> None:
        """A row's result."""
        if self._moving is not None:
            self._moving.stop()
        render.show(self._out, render.answer(self._job, answer, self._named))

    def summary(self) -> str:
        """All rows together."""
        rows, nfe = self._rows, sum(row.nfe for row in self._rows)
        parts = [f"{len(rows)} row{'s' * (len(rows) != 1)} answered"] + (
            [f"{self.failed} with an error"] if self.failed else []
        )
        if rows:
            filled = sum(row.filled for row in rows)
            parts.append(f"{nfe / len(rows):.1f} forward passes a row, {filled / max(1, nfe):.1f} tokens each")
        return "; ".join(parts)


@contextmanager
def screen(job: Job, total: int, *, many: bool, live: bool, quiet: bool) -> Generator[Screen]:
    """A screen for a job of `total` rows; `many` names them and sums them up; `quiet` if stdout shows no rows."""
    watched = render.is_terminal(stderr=True)
    if live and not watched:
        typer.echo("--live needs a terminal; only the result is shown", err=True)
    if live and watched:
        with Live(console=render.console(stderr=True), transient=True, auto_refresh=False) as moving:
            yield Screen(job, many, moving, lambda: None)
    # a bar among rows on the same terminal would tear them apart
    elif many and watched and (quiet or not render.is_terminal(stderr=False)):
        with bar() as progress:
            task = progress.add_task("rows", total=total)
            yield Screen(job, many, None, lambda: progress.advance(task))
    else:
        yield Screen(job, many, None, lambda: None)


def bar() -> Progress:
    """A progress bar on stderr; none if that is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=render.console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
