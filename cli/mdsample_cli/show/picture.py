"""The picture of `bench`: accuracy against forward passes, with 95 % intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdsample.evaluation.bench import PolicyScore
from mdsample_cli.show.style import MARKS, Label, drawing, label_points, legend_below, look, save


def draw(scores: Sequence[PolicyScore], policies: Sequence[str], path: Path) -> None:
    """A point for each score, settings of the same parts joined to a curve; a colour for each, a mark for each model.

    `policies`: texts of the policies, in the scores' order, repeated for each model.
    """
    from matplotlib.figure import Figure

    with drawing("bench"):
        figure: Any = Figure(figsize=(9.0, 5.6), layout="constrained")
        _curves(figure, figure.subplots(), scores, policies)
        save(figure, path)


def _curves(figure: Any, axes: Any, scores: Sequence[PolicyScore], policies: Sequence[str]) -> None:
    models = list(dict.fromkeys(score.model for score in scores))
    curves: dict[tuple[str, str], list[tuple[PolicyScore, str]]] = {}
    for number, score in enumerate(scores):
        text = policies[number % len(policies)]
        curves.setdefault((re.sub(r"\([^)]*\)", "", text), score.model), []).append((score, text))
    labels: list[Label] = []
    colours = list(dict.fromkeys(parts for parts, _ in curves))
    for (parts, model), curve in curves.items():
        points = sorted(curve, key=lambda point: point[0].nfe.value)
        nfe, accuracy = ([getattr(score, name) for score, _ in points] for name in ("nfe", "accuracy"))
        looks = look(colours.index(parts))
        if len(models) > 1:
            looks["marker"] = MARKS[models.index(model) % len(MARKS)]
        label = parts if len(points) > 1 else points[0][1]
        axes.errorbar(
            [x.value for x in nfe],
            [100 * y.value for y in accuracy],
            xerr=[[x.value - x.low for x in nfe], [x.high - x.value for x in nfe]],
            yerr=[[100 * (y.value - y.low) for y in accuracy], [100 * (y.high - y.value) for y in accuracy]],
            elinewidth=0.6,
            label=label if len(models) == 1 else f"{label}, {model}",
            **looks,
        )
        for score, text in points if len(points) > 1 else []:
            settings = ", ".join(inside for inside in re.findall(r"\(([^)]*)\)", text) if inside)
            if settings:
                labels.append(Label(score.nfe.value, 100 * score.accuracy.value, settings, looks["color"]))
    if max(score.nfe.value for score in scores) > 5 * min(score.nfe.value for score in scores):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="forward passes a row", ylabel="accuracy, %")
    figure.suptitle(f"{scores[0].task}, {scores[0].limit} problems; bars are 95 % intervals", x=0.01, ha="left")
    legend_below(figure)
    label_points(axes, labels)
