"""Rules compared along their settings: at equal forward passes, and by the fewest passes that lose little.

A rule's accuracy at a number of passes is read off the line between its two settings around it: a run that takes either
by a coin reaches it. Intervals are percentiles of a bootstrap over problems, the same draws for every rule, so that
differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Doubles
from mdsample.evaluation.intervals import Interval, resamples
from mdsample.evaluation.study import Cell, Results

#: how much accuracy may be lost against the baseline
WITHIN = 0.02


@attrs.frozen
class AtPasses:
    """A rule at given numbers of passes; `None` where no two settings lie around one."""

    rule: str
    accuracy: tuple[Interval | None, ...]
    #: minus that of the rule that all are compared with; `None` for that rule too
    difference: tuple[Interval | None, ...]


@attrs.frozen
class Fewest:
    """The fewest passes at which a rule is within `WITHIN` of the baseline, rounded up to tenths; infinite: never."""

    rule: str
    passes: Interval


def by_rule(cells: Sequence[Cell]) -> dict[str, list[Results]]:
    """The results of each rule of one task and model, those with any, in the order of their settings."""
    found: dict[str, list[Results]] = {}
    for cell in cells:
        if cell.results is not None:
            found.setdefault(cell.rule, []).append(cell.results)
    return found


def at_passes(rules: Mapping[str, Sequence[Results]], at: Sequence[float], against: str) -> list[AtPasses]:
    """Rules of several settings at these numbers of passes; an empty list if `against` is not among them."""
    several = {name: results for name, results in rules.items() if len(results) > 1}
    if against not in several:
        return []
    values = {name: _reached(_lines(results), at) for name, results in several.items()}
    base = values[against]
    return [
        AtPasses(
            name,
            tuple(_interval(found[:, k]) for k in range(len(at))),
            tuple(None if name == against else _interval(found[:, k] - base[:, k]) for k in range(len(at))),
        )
        for name, found in values.items()
    ]


def fewest(rules: Mapping[str, Sequence[Results]], baseline: Results) -> list[Fewest]:
    """The fewest passes of each rule."""
    wanted = _means(baseline.solved.mean(1)) - WITHIN
    found: list[Fewest] = []
    for name, results in rules.items():
        passes = [_first(x, y, least) for (x, y), least in zip(_lines(results), wanted, strict=True)]
        low, high = np.quantile(passes[1:], [0.025, 0.975], method="nearest")
        found.append(Fewest(name, Interval(passes[0], float(low), float(high))))
    return found


def _means(values: Doubles) -> Doubles:
    """The mean of `[problems]`, and that of every bootstrap draw of them, `[1 + draws]`."""
    return np.array([values.mean(), *values[resamples(len(values))].mean(1)])


def _lines(results: Sequence[Results]) -> list[tuple[Doubles, Doubles]]:
    """Passes, rising, and accuracies of a rule's settings: on all problems, then on every draw of them."""
    x = np.stack([_means(one.nfe.mean(1)) for one in results], 1)
    y = np.stack([_means(one.solved.mean(1)) for one in results], 1)
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    return list(zip(x, y, strict=True))


def _reached(lines: Sequence[tuple[Doubles, Doubles]], at: Sequence[float]) -> Doubles:
    """Accuracies at these passes, `[1 + draws, at]`; not a number outside of a line."""
    points = np.array(at)
    return np.array(
        [np.where((points < x[0]) | (points > x[-1]), np.nan, np.interp(points, x, y)) for x, y in lines], np.float64
    )


def _interval(values: Doubles) -> Interval | None:
    """The first number with the middle 95 % of the others, those that are numbers."""
    if np.isnan(values[0]):
        return None
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def _first(x: Doubles, y: Doubles, least: float) -> float:
    """Where a line first reaches an accuracy, rounded up to tenths."""
    if y[0] >= least:
        return _up(float(x[0]))
    for k in np.flatnonzero(y[1:] >= least)[:1]:
        share = (least - y[k]) / (y[k + 1] - y[k])
        return _up(float(x[k] + share * (x[k + 1] - x[k])))
    return math.inf


def _up(passes: float) -> float:
    return math.ceil(passes * 10 - 1e-6) / 10
