"""What is shown while rows are being answered: nothing, a bar, or the canvas as it fills."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from mdsample.jobs.job import Answer, Job
from mdsample.policy.base import Policy
from mdsample.sampling.state import State
from mdsample_cli.errors import note
from mdsample_cli.show import render

#: kinds of errors that a summary spells out
_KINDS = 5
#: columns that a bar, counts, pace and time take beside a name
_BESIDE = 60


class Pace:
    """How fast a job is: forward passes, and blanks filled a second."""

    def __init__(self) -> None:
        """Counts from now on."""
        self._began = time.perf_counter()
        self._passes = self._done = 0
        self._running: dict[int, tuple[int, int]] = {}

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._began

    def see(self, state: State) -> None:
        """The state of rows that were added together, after a step of some of them."""
        key = id(state.canvas)
        spent, filled = int(state.nfe.sum()), int((state.canvas.blank & ~state.blank).sum())
        before = self._running.get(key, (0, 0))
        self._passes += spent > before[0]
        self._done += filled - before[1]
        self._running[key] = spent, filled
        if state.done:
            del self._running[key]

    def __str__(self) -> str:
        """For a bar."""
        rate = f", {self._done / self.seconds:,.0f} tokens/s" if self._passes else ""
        return render.count(self._passes, "pass", "es") + rate


class Screen:
    """Shows answers on stdout, and how far the job is on stderr."""

    def __init__(
        self, job: Job, label: str, named: bool, moving: Live | None, tell: Callable[[int, Pace], None]
    ) -> None:
        """`label`: text of the policy; `named` rows are shown with their ids; `tell` is told of rows done and pace."""
        self._job, self._label, self._named, self._moving, self._tell = job, label, named, moving, tell
        self._out = render.console()
        self._pace = Pace()
        self._rows = self._nfe = self._filled = self._rounds = self._steps = 0
        #: how often there is each kind of error, and the first one of it
        self._errors = Counter[str]()
        self._first: dict[str, str] = {}

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return self._errors.total()

    def see(self, state: State) -> None:
        """The state after a step."""
        self._pace.see(state)
        self._tell(self._rows + self.failed, self._pace)
        if self._moving is not None:
            size = self._moving.console.size
            tokenizer = self._job.denoiser.tokenizer
            self._moving.update(render.frame(state, 0, tokenizer, size.width, size.height), refresh=True)

    def count(self, answer: Answer) -> None:
        """A row is done."""
        row = answer.row
        if row is None:
            self._fail(answer.request.error)
        else:
            self._add(row.nfe, row.filled, row.rounds, row.steps)
        self._tell(self._rows + self.failed, self._pace)

    def count_record(self, record: Mapping[str, Any]) -> None:
        """A row is done elsewhere; this is its record."""
        if "error" in record:
            self._fail(record["error"])
        else:
            nfe: int = record["nfe"]
            self._add(nfe, round(nfe * record["tokens_per_forward"]), record["rounds"], record["steps"])
        self._tell(self._rows + self.failed, self._pace)

    def _add(self, nfe: int, filled: int, rounds: int, steps: int) -> None:
        """A row is answered; of many rows only sums are kept."""
        self._rows += 1
        self._nfe += nfe
        self._filled += filled
        self._rounds += rounds
        self._steps += steps

    def _fail(self, error: str) -> None:
        """A row has an error; kinds of errors differ in more than names and numbers."""
        reason = re.sub(r"^(line|row) \d+: ", "", error).partition("\n")[0]
        kind = re.sub(r"'[^']*'|\d+", "", reason)
        self._first.setdefault(kind, reason)
        self._errors[kind] += 1

    def show(self, answer: Answer) -> None:
        """A row's result."""
        if self._moving is not None:
            self._moving.stop()
        seconds = None if self._named else self._pace.seconds
        render.show(self._out, render.answer(self._job, answer, self._named, self._label, seconds))
        if not self._named and answer.row is not None and self._out.color_system is not None:
            render.show(self._out, render.legend())

    def summary(self) -> str:
        """All rows together, and why some have an error."""
        rows, nfe, filled, seconds = self._rows, self._nfe, self._filled, self._pace.seconds
        parts = [f"{render.count(rows, 'row')} answered"]
        if self._errors:
            parts.append(f"{self.failed:,} with an error")
        if rows:
            guessed = f" in {self._rounds / rows:.1f} rounds" if self._rounds < self._steps else ""
            parts.append(f"{nfe / rows:.1f} forward passes a row{guessed}, {filled / max(1, nfe):.1f} tokens each")
            parts.append(render.speed(seconds, filled))
        return "\n".join(["; ".join(parts), *self._kinds()])

    def _kinds(self) -> list[str]:
        kinds = self._errors
        lines = [f"  {number:,} × {render.plain(self._first[kind])}" for kind, number in kinds.most_common(_KINDS)]
        return lines if len(kinds) <= _KINDS else [*lines, f"  and {len(kinds) - _KINDS} other kinds"]


@contextmanager
def screen(job: Job, label: str, total: int, *, many: bool, live: bool, quiet: bool) -> Generator[Screen]:
    """A screen for a job of `total` rows under the policy `label`.

    `many` names them and sums them up; `quiet` if stdout shows no rows.
    """
    watched = render.is_terminal(stderr=True)
    if live and not watched:
        note("--live needs a terminal; only the result is shown")
    if live and watched:
        with Live(console=render.console(stderr=True), transient=True, auto_refresh=False) as moving:
            yield Screen(job, label, many, moving, lambda done, pace: None)
    # a bar among rows on the same terminal would tear them apart
    elif many and watched and (quiet or not render.is_terminal(stderr=False)):
        with bar() as progress:
            task = progress.add_task("rows", total=total, pace="")
            yield Screen(
                job, label, many, None, lambda done, pace: progress.update(task, completed=done, pace=f"{pace}")
            )
    else:
        yield Screen(job, label, many, None, lambda done, pace: None)


def bar() -> Progress:
    """A progress bar on stderr; none if that is not a terminal. A task's field `pace` is shown if it has one."""
    out = render.console(stderr=True)
    # of a long name the end is cut, never the numbers beside it
    name = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, out.width - _BESIDE))
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        _Pace("{task.fields[pace]}", markup=False, style="cyan"),
        _Time(""),
        console=out,
        transient=True,
        disable=not sys.stderr.isatty(),
    )


class Bars:
    """A bar for each policy of a comparison."""

    def __init__(self, progress: Progress, policies: Sequence[Policy], names: Sequence[str], total: int) -> None:
        """Each of the policies answers `total` problems."""
        self._progress = progress
        self._tracks = {
            policy: progress.add_task(name, total=total, start=False, pace="")
            for policy, name in zip(policies, names, strict=True)
        }
        self._at_work, self._pace = self._tracks[policies[0]], Pace()

    def count(self, policy: Policy, done: int) -> None:
        """So many problems are answered by a policy."""
        if (track := self._tracks[policy]) != self._at_work or not done:
            self._at_work, self._pace = track, Pace()
            self._progress.start_task(track)
        self._progress.update(track, completed=done)

    def see(self, state: State) -> None:
        """The state after a step of the policy that is at work."""
        self._pace.see(state)
        self._progress.update(self._at_work, pace=f"{self._pace}")


class CellBar:
    """One bar for all cells of a study."""

    def __init__(self, progress: Progress, total: int) -> None:
        """All cells together have `total` answers."""
        self._progress = progress
        self._track = progress.add_task("", total=total, pace="")
        self._at_work, self._before, self._now, self._pace = "", 0, 0, Pace()

    def count(self, cell: str, answered: int) -> None:
        """So many answers of a cell are there."""
        if cell != self._at_work or answered < self._now:
            self._at_work, self._pace = cell, Pace()
            self._before, self._now = self._before + self._now, 0
        self._now = answered
        self._progress.update(self._track, description=cell, completed=self._before + answered)

    def see(self, state: State) -> None:
        """The state after a step of the cell that is at work."""
        self._pace.see(state)
        self._progress.update(self._track, pace=f"{self._pace}")


class _Time(TextColumn):
    """How long a task has been at work, and how long it will be; nothing before it begins."""

    def render(self, task: Task) -> Text:
        """In minutes and seconds."""
        if task.elapsed is None:
            return Text()
        left = "" if task.finished or task.time_remaining is None else f", {_clock(task.time_remaining)} left"
        return Text(_clock(task.elapsed) + left, "yellow")


def _clock(seconds: float) -> str:
    """A time: `1:05`, `2:00:00`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Pace(TextColumn):
    """The pace of a task, if it has one."""

    def render(self, task: Task) -> Text:
        """Nothing for a task without."""
        return super().render(task) if "pace" in task.fields else Text()
