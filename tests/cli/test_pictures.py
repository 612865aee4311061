"""Pictures: nothing that is written covers anything else, and no two curves look alike."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mdsample_cli.show.style import COLOURS, Label, drawing, label_points, legend_below, look, save


def test_looks_differ_by_more_than_their_colour() -> None:
    looks = [{key: look(number)[key] for key in ("color", "linestyle", "marker")} for number in range(35)]
    for one, other in combinations(looks, 2):
        assert one != other
        assert {**one, "color": 0} != {**other, "color": 0}


@pytest.mark.parametrize("seed", range(3))
def test_labels_cover_no_mark_and_no_other_label(seed: int) -> None:
    x, y = np.random.default_rng(seed).normal([[3.0], [80.0]], [[0.4], [5.0]], (2, 14))
    with drawing("test"):
        figure: Any = Figure(figsize=(9, 5.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(x, y, "o", label="some points", markersize=4)
        axes.plot(x.mean(), y.mean() - 30, "s", label="another", markersize=4)
        legend_below(figure)
        label_points(axes, [Label(*at, "0.25", COLOURS[0]) for at in zip(x.tolist(), y.tolist(), strict=True)])
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == 14
    inside = axes.get_window_extent()
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        assert not any(box.contains(*point) for point in axes.transData.transform(np.column_stack([x, y])))


def test_a_legend_leaves_the_width_to_the_picture() -> None:
    with drawing("test"):
        figure: Any = Figure(figsize=(7, 4.8), layout="constrained")
        axes = figure.subplots()
        for number in range(6):
            axes.plot([0, 1], [number, 0], label=f"entropy+a-long-name-of-a-selection({number})", **look(number))
        legend_below(figure)
        FigureCanvasAgg(figure).draw()
    assert axes.get_position().width > 0.85
    [legend] = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.y1 <= axes.get_window_extent().y0 and whole.x0 <= box.x0 and box.x1 <= whole.x1


def test_an_svg_is_the_same_in_every_run(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        with drawing("test"):
            figure: Any = Figure(layout="constrained")
            figure.subplots().plot([0, 1], [1, 0], **look(0))
            save(figure, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
