"""What is shown while rows are being answered: nothing, a bar, or the canvas as it fills."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mdsample.jobs.job import Answer, Job
from mdsample.sampling.result import Row
from mdsample.sampling.state import State
from mdsample_cli.show import render

#: how many different errors a summary tells
_FAULTS = 5


class Screen:
    """Shows answers on stdout, and how far the job is on stderr."""

    def __init__(
        self, job: Job, policy: str, named: bool, moving: Live | None, advance: Callable[[int, int], None]
    ) -> None:
        """`policy` as it was typed; `named` rows are shown with their ids and summed up.

        `moving` shows the canvas; `advance` is told how many rows and how many passes have been made.
        """
        self._job, self._policy, self._named, self._moving, self._advance = job, policy, named, moving, advance
        self._out = render.console()
        self._rows: list[Row] = []
        self._passes = 0
        self._faults = Counter[str]()
        self._began = time.perf_counter()

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return self._faults.total()

    def see(self, state: State) -> None:
        """The state after a step."""
        self._passes += 1
        self._advance(self._done, self._passes)
        if self._moving is not None:
            self._moving.update(render.Frame(state, 0, self._job.denoiser.tokenizer), refresh=True)

    def count(self, answer: Answer) -> None:
        """A row is done."""
        if answer.row is None:
            # of faults in several lines the first is enough, and where it was is in the record
            self._faults[re.sub(r"^line \d+: ", "", answer.request.error).partition("\n")[0]] += 1
        else:
            self._rows.append(answer.row)
        self._advance(self._done, self._passes)

    def show(self, answer: Answer) -> None:
        """A row's result."""
        if self._moving is not None:
            self._moving.stop()
        seconds = None if self._named else time.perf_counter() - self._began
        render.show(self._out, render.answer(self._job, answer, self._named, self._policy, seconds))

    def summary(self) -> str:
        """All rows together, and each fault once."""
        rows, nfe, seconds = self._rows, sum(row.nfe for row in self._rows), time.perf_counter() - self._began
        parts = [f"{len(rows)} row{'s' * (len(rows) != 1)} answered"]
        parts += [f"{self.failed} with an error"] * bool(self.failed)
        if rows:
            filled = sum(row.filled for row in rows)
            parts.append(f"{nfe / len(rows):.1f} forward passes a row, {filled / max(1, nfe):.1f} tokens each")
            parts.append(f"{seconds:.1f} s, {filled / seconds:.0f} tokens a second")
        common = [f"  {count} x {fault}" for fault, count in self._faults.most_common(_FAULTS)]
        more = len(self._faults) - len(common)
        return "\n".join(["; ".join(parts), *common, *[f"  and {more} other errors"] * (more > 0)])

    @property
    def _done(self) -> int:
        return len(self._rows) + self.failed


@contextmanager
def screen(job: Job, policy: str, total: int, *, many: bool, live: bool, quiet: bool) -> Generator[Screen]:
    """A screen for a job of `total` rows; `many` names them and sums them up; `quiet` if stdout shows no rows."""
    watched = render.is_terminal(stderr=True)
    if live and not watched:
        typer.echo("--live needs a terminal; only the result is shown", err=True)
    if live and watched:
        with Live(console=render.console(stderr=True), transient=True, auto_refresh=False) as moving:
            yield Screen(job, policy, many, moving, lambda rows, passes: None)
    # a bar among rows on the same terminal would tear them apart
    elif many and watched and (quiet or not render.is_terminal(stderr=False)):
        with bar(TextColumn("{task.fields[passes]} passes")) as progress:
            task = progress.add_task("rows", total=total, passes=0)
            yield Screen(
                job, policy, many, None, lambda rows, passes: progress.update(task, completed=rows, passes=passes)
            )
    else:
        yield Screen(job, policy, many, None, lambda rows, passes: None)


def bar(*columns: ProgressColumn) -> Progress:
    """A progress bar on stderr, with these columns more; none if that is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=render.console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
