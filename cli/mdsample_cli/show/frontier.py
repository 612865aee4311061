"""The picture of a study: accuracy against forward passes, a curve for each rule, stars for single policies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from mdsample_cli.show.style import Label, label_points, legend_below, look

#: a point: forward passes, and accuracy in percent
Points = Sequence[tuple[float, float]]


def frontier(
    title: str, panels: Mapping[str, Sequence[str]], rules: Mapping[str, Points], stars: Mapping[str, Points], ink: str
) -> Any:
    """The figure, to be drawn and saved inside `style.drawing`.

    `panels`: the rules of each panel, by its title. `stars`: single policies, in every panel, in the colour `ink`.
    """
    figure: Any = Figure(figsize=(9.0, 4.6 * len(panels)), layout="constrained")
    grid = np.ravel(figure.subplots(len(panels), sharex=True, sharey=True))
    passes = [x for points in [*rules.values(), *stars.values()] for x, _ in points]
    for axes, (name, names) in zip(grid, panels.items(), strict=True):
        for number, rule in enumerate(names):
            # one that begins with _ would be left out of the legend
            axes.plot(*np.array(sorted(rules[rule])).T, label=rule if rule[:1] != "_" else f" {rule}", **look(number))
        for points in stars.values():
            axes.plot(*np.array(points).T, "*", color=ink, ms=8)
        if max(passes) > 2 * min(passes):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(LogLocator(2, (1.0, 1.5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=name, xlabel="forward passes a row", ylabel="accuracy, %")
        legend_below(figure, axes=axes)
    figure.suptitle(title, x=0.01, ha="left")
    for axes in grid:
        some = sorted(stars, key=lambda name: -max(y for _, y in stars[name]))
        label_points(axes, [Label(*stars[name][0], name, ink) for name in some])
    return figure


def dealt(rules: Sequence[str], most: int = 12) -> dict[str, Sequence[str]]:
    """Panels of rules in their order, as few as can be of at most so many, without titles that say more."""
    count = max(1, math.ceil(len(rules) / most))
    return {" " * number: list(some) for number, some in enumerate(np.array_split(np.array(rules, object), count))}
