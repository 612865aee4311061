"""The picture of `audit`: KL against expected forward passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mdsample.core.arrays import Doubles
from mdsample.exact.audit import Audit, Point, hull
from mdsample_cli.show.style import COLOURS, MARKS, drawing, legend_below, look, save

#: rules that are drawn together: thirteen curves that nearly coincide cannot be told apart in one panel
GROUPS = {
    "entropy tests": ("MED", "AR-MED", "EB", "budget"),
    "confidence tests": ("threshold", "factor", "Fréchet", "cumulative", "KLASS"),
    "counts": ("top-k", "margin-k", "random-k", "lookahead-k"),
}


def draw(path: Path, title: str, blanks: int, rows: Sequence[Audit], points: Sequence[Point]) -> None:
    """KL over expected forward passes: policies as marks, what each rule can reach as a line; 1 to `blanks` passes."""
    rules: dict[str, list[Point]] = {}
    for point in points:
        rules.setdefault(point.rule, []).append(point)
    groups = {group: [name for name in names if name in rules] for group, names in GROUPS.items()}
    groups["others"] = [name for name in rules if not any(name in names for names in GROUPS.values())]
    groups = {group: names for group, names in groups.items() if names}
    with drawing("audit"):
        figure: Any = Figure(figsize=(max(7.0, 3.7 * len(groups)), 5.2 if groups else 4.8), layout="constrained")
        panels = np.ravel(figure.subplots(1, max(1, len(groups)), sharex=True, sharey=True))
        for axes, (group, names) in zip(panels, groups.items(), strict=False):
            _best(axes, rules)
            for number, rule in enumerate(names):
                axes.plot(*_curve(rules[rule]), label=rule, **look(number))
            axes.set_title(group, loc="left")
            legend_below(figure, axes=axes)
        legend_below(figure, {row.policy: mark for axes in panels for row, mark in _marks(axes, rows)})
        if points:  # a rule that counts several passes a step goes far beyond what one at a time costs
            most = max([blanks, *(row.expected_nfe for row in rows)])
            panels[0].set_xlim(1 - 0.04 * most, 1.04 * most)
        for axes in panels:
            axes.set_xlabel("expected forward passes")
        panels[0].set_ylabel("KL(joint ‖ law), nats")
        figure.suptitle(title, x=0.01, ha="left")
        save(figure, path)


def _curve(points: Sequence[Point]) -> tuple[Doubles, Doubles]:
    return hull([point.expected_nfe for point in points], [point.kl for point in points])


def _best(axes: Any, rules: dict[str, list[Point]]) -> None:
    """What the best of all rules reaches, a broad grey line behind the others."""
    axes.plot(
        *_curve([point for curve in rules.values() for point in curve]),
        color="0.85",
        lw=5,
        zorder=0,
        label="best of all",
    )


def _marks(axes: Any, rows: Sequence[Audit]) -> Iterator[tuple[Audit, Any]]:
    """The policies; those that reach the same numbers are seen through one another's size."""
    for number, row in enumerate(rows):
        if math.isfinite(row.kl):
            size, colour = max(4, 11 - 2 * number), COLOURS[number % len(COLOURS)]
            [mark] = axes.plot(
                *([row.expected_nfe], [row.kl]),
                MARKS[number % len(MARKS)],
                color="none",
                markersize=size,
                markeredgecolor=colour,
                markeredgewidth=1.4,
            )
            yield row, mark
