"""Numbers of a study as people read them, on a terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from mdsample.evaluation.curves import AtPasses, Fewest
from mdsample.evaluation.intervals import Interval
from mdsample.evaluation.study import Cell

COLUMNS = ("accuracy, %", "difference", "NFE", "speed-up", "tokens/pass", "error bound")


def groups(cells: Sequence[Cell]) -> Iterator[tuple[str, str, list[Cell]]]:
    """Cells by task and model."""
    for (task, model), group in groupby(cells, lambda cell: (cell.task, cell.model)):
        yield task, model, list(group)


def place(task: str, model: str, cells: Sequence[Cell]) -> str:
    """What a group of cells is about."""
    got = next((cell.results for cell in cells if cell.results is not None), None)
    return f"{task}, {model}" + ("" if got is None else f" on {got.backend}, {len(got.solved)} problems")


def label(cell: Cell) -> str:
    """A policy under the name that the study gives it."""
    return cell.text if cell.rule == cell.text else f"{cell.rule}: {cell.text}"


def numbers(cell: Cell) -> list[str]:
    """Under `COLUMNS`; empty where there is nothing to compare with, or a failure."""
    if cell.results is None:
        return ["failed", *[""] * (len(COLUMNS) - 1)]
    nfe, ratio = cell.nfe, cell.nfe_ratio
    bound = cell.error_bound
    return [
        percent(cell.accuracy),
        "" if cell.difference is None else percent(cell.difference, "+"),
        f"{nfe.value:.1f} ± {nfe.high - nfe.value:.1f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{cell.tokens_per_forward:.2f}",
        f"{bound:.2f}" if math.isfinite(bound) else "none",
    ]


def percent(interval: Interval, sign: str = "") -> str:
    """A share with its interval, in percent."""
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def at_cells(found: AtPasses) -> list[str]:
    """A rule's accuracies at equal passes, with the difference where there is one."""
    cells: list[str] = []
    for accuracy, difference in zip(found.accuracy, found.difference, strict=True):
        if accuracy is None:
            cells.append("")
        elif difference is None:
            cells.append(percent(accuracy))
        else:
            cells.append(f"{100 * accuracy.value:.1f} ({percent(difference, '+')})")
    return cells


def fewest_cell(found: Fewest) -> str:
    """The fewest passes with their interval."""
    value, low, high = (
        f"{x:.1f}" if math.isfinite(x) else "never" for x in (found.passes.value, found.passes.low, found.passes.high)
    )
    return f"{value} [{low}, {high}]"
