"""The picture of `bench`: accuracy against forward passes, with 95 % intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdsample.evaluation.bench import PolicyScore

_MARKS = "osD^v<>P*X"


def draw(scores: Sequence[PolicyScore], policies: Sequence[str], path: Path) -> None:
    """A point for each score, settings of the same parts joined to a curve; a colour for each, a mark for each model.

    `policies`: texts of the policies, in the scores' order, repeated for each model.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from mdsample_cli.show.plot import save

    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "bench"})
    figure: Any = Figure(figsize=(9.0, 4.8), layout="constrained")
    axes: Any = figure.subplots()
    models = list(dict.fromkeys(score.model for score in scores))
    curves: dict[tuple[str, str], list[tuple[PolicyScore, str]]] = {}
    for number, score in enumerate(scores):
        text = policies[number % len(policies)]
        curves.setdefault((re.sub(r"\([^)]*\)", "", text), score.model), []).append((score, text))
    colours = list(dict.fromkeys(parts for parts, _ in curves))
    for (parts, model), curve in curves.items():
        points = sorted(curve, key=lambda point: point[0].nfe.value)
        nfe, accuracy = ([getattr(score, name) for score, _ in points] for name in ("nfe", "accuracy"))
        colour = f"C{colours.index(parts) % 10}"
        label = parts if len(points) > 1 else points[0][1]
        axes.errorbar(
            [x.value for x in nfe],
            [100 * y.value for y in accuracy],
            xerr=[[x.value - x.low for x in nfe], [x.high - x.value for x in nfe]],
            yerr=[[100 * (y.value - y.low) for y in accuracy], [100 * (y.high - y.value) for y in accuracy]],
            marker=_MARKS[models.index(model) % len(_MARKS)],
            color=colour,
            ls="--" if colours.index(parts) >= 10 else "-",
            ms=4,
            lw=1.2,
            elinewidth=0.6,
            label=label if len(models) == 1 else f"{label}, {model}",
        )
        for score, text in points if len(points) > 1 else []:
            settings = ", ".join(inside for inside in re.findall(r"\(([^)]*)\)", text) if inside)
            where = (score.nfe.value, 100 * score.accuracy.value)
            axes.annotate(settings, where, xytext=(4, -9), textcoords="offset points", fontsize=7, color=colour)
    if max(score.nfe.value for score in scores) > 5 * min(score.nfe.value for score in scores):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="forward passes a row", ylabel="accuracy, %")
    figure.suptitle(f"{scores[0].task}, {scores[0].limit} problems; bars are 95 % intervals", x=0.01, ha="left")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    save(figure, path, dpi=160)
