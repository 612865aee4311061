"""How pictures look: one set of colours, dashes and marks, legends below, labels that keep clear of the rest.

The benchmarks draw with it, too. matplotlib is an extra, and only partly typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from mdsample.core import html
from mdsample.core.files import write_whole

#: Okabe and Ito's colours without yellow, which the colour-blind can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: text and axes of a picture that takes its page's colour, see `inline`
INK = "#010101"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKS = "osD^v<>PX"
#: how far a legend stands below its axes, whose ticks and label are between, points
_BELOW = 34
#: of labels beside points
SMALL = 7
#: where a label may stand: distances from its point, points, and directions
_DISTANCES = (5, 9, 14, 20, 28, 38, 50)
_DIRECTIONS = [(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, 2 * math.pi, 16, endpoint=False) - 0.4]
#: from this distance on a line leads from the label to its point
_FAR = 9


@contextmanager
def drawing(salt: str, more: Mapping[str, Any] | None = None) -> Generator[None, None, None]:
    """In it figures are made and saved; `salt` makes an SVG the same in every run. `more`: of matplotlib's settings."""
    import matplotlib as mpl

    looks: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    looks |= {"grid.alpha": 0.25, "legend.frameon": False, "svg.hashsalt": salt}
    looks |= more or {}
    with mpl.rc_context(looks):  # pyright: ignore[reportUnknownMemberType]
        yield


def look(number: int) -> dict[str, Any]:
    """How the curve of this number is drawn: arguments of `plot`. The first 35 differ, and no two by colour alone."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKS[number % len(MARKS)],
        "markersize": 5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "linewidth": 1.3,
    }


def save(figure: Any, path: Path, dpi: int = 160) -> None:
    """Writes the picture whole or not at all, in the format of its ending; an SVG is the same in every run."""
    drawn, kind = BytesIO(), path.suffix.lower().removeprefix(".")
    figure.savefig(drawn, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, drawn.getvalue())


def inline(figure: Any, alt: str, prefix: str) -> str:
    """The picture as an SVG element of a page, whose text colour takes the place of `INK` and black.

    `alt`: what it shows, for those who do not see it. `prefix` keeps its ids apart from those of other pictures.
    """
    drawn = BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
    _, found, svg = drawn.getvalue().decode().partition("<svg ")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = svg.replace(INK, "currentColor").replace("#000000", "currentColor")
    return f'{found}role="img" aria-label="{html.text(alt)}" {svg}'


def legend_below(figure: Any, named: dict[str, Any] | None = None, axes: Any = None) -> None:
    """What the curves mean, below the figure, or below `axes`, in as many columns as there is room for.

    `named`: lines and marks by what they mean, all that have a label if not given.
    """
    if named is None:
        found = [some.get_legend_handles_labels() for some in (figure.axes if axes is None else [axes])]
        named = {label: line for lines, labels in found for line, label in zip(lines, labels, strict=True)}
    if not named:
        return
    inches = figure.get_figwidth() * (1 if axes is None else axes.get_position().width)
    longest = max(map(len, named)) + 7  # a line or mark stands before each
    columns = max(1, min(len(named), int(inches * 15 / longest)))
    where = figure if axes is None else axes
    place: dict[str, Any] = {"loc": "outside lower center"}
    if axes is not None:
        from matplotlib.transforms import ScaledTranslation

        below = axes.transAxes + ScaledTranslation(0, -_BELOW / 72, figure.dpi_scale_trans)
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "borderaxespad": 0.0}
    where.legend(named.values(), named.keys(), ncols=columns, fontsize="small", **place)


@attrs.frozen
class Label:
    """What is written beside a point, in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def label_points(axes: Any, labels: Sequence[Label]) -> None:
    """Writes each label where it covers no mark, no other label and as little of the curves as can be.

    One after another they take the nearest free place around their points; the last thing to do before a picture is
    saved, since it asks where everything stands.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    scale = figure.dpi / 72
    inside = np.array(axes.get_window_extent().extents)
    marks = [
        axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))
        for line in axes.lines
        if line.get_marker() not in ("", "None", None)
    ]
    points = np.concatenate([np.empty((0, 2)), *marks])
    taken = np.column_stack([points - 4 * scale, points + 4 * scale])
    curves = np.concatenate([np.empty((0, 2)), *(_along(line, axes) for line in axes.lines)])
    for label in labels:
        here = axes.transData.transform((label.x, label.y))
        written = axes.text(label.x, label.y, label.text, fontsize=SMALL)
        size = np.array(written.get_window_extent(canvas.get_renderer()).size)
        written.remove()
        offset, far = min(
            (
                (np.array(way) * (distance * scale + size / 2), distance)
                for distance in _DISTANCES
                for way in _DIRECTIONS
            ),
            key=lambda place: _cost(here + place[0], size, taken, curves, inside, here) + place[1] / 40,
        )
        centre = here + offset
        taken = np.vstack([taken, [*(centre - size / 2), *(centre + size / 2)]])
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=tuple(offset / scale),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL,
            color=label.colour,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": label.colour, "shrinkB": 2} if far > _FAR else None,
        ).set_in_layout(False)


def _along(line: Any, axes: Any) -> Any:
    """Places along a line, pixels, close enough that no label slips between."""
    corners = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))
    share = np.linspace(0, 1, 40)[:, None, None]
    return (corners[:-1] * (1 - share) + corners[1:] * share).reshape(-1, 2)


def _cost(centre: Any, size: Any, taken: Any, curves: Any, inside: Any, point: Any) -> float:
    """How bad it is for a label to stand there: what it would cover, in parts of itself, and how far it stands out."""
    low, high = centre - size / 2 - 1, centre + size / 2 + 1
    wide = np.clip(np.minimum(high, taken[:, 2:]) - np.maximum(low, taken[:, :2]), 0, None)
    covered = wide.prod(1).sum() / size.prod()
    on_curves = ((curves > low) & (curves < high)).all(1).sum()
    outside = (low < inside[:2]).sum() + (high > inside[2:]).sum()
    way = point + np.linspace(0.2, 0.8, 5)[:, None] * (centre - point)  # the line that leads there crosses no label
    crossed = ((way[:, None] > taken[None, :, :2]) & (way[:, None] < taken[None, :, 2:])).all(2).any(1).sum()
    return float(20 * covered + 0.05 * on_curves + 10 * outside + 2 * crossed)
