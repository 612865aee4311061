"""The picture of `audit`: KL against expected forward passes; matplotlib is an extra, and only partly typed."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from mdsample.core.files import write_whole
from mdsample.exact.audit import Audit, Point, hull

#: Okabe and Ito's colours without yellow. Seven colours and five dashes: 35 rules differ, and no two by colour alone
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = "os^Dv*PX"


def draw(path: Path, title: str, blanks: int, rows: Sequence[Audit], points: Sequence[Point]) -> None:
    """KL over expected forward passes: policies as dots, what each rule can reach as a line; 1 to `blanks` passes."""
    figure = Figure(figsize=(9 if points else 7, 4.8), layout="constrained")
    axes = figure.add_subplot()
    rules: dict[str, list[Point]] = {}
    for point in points:
        rules.setdefault(point.rule, []).append(point)
    for number, (rule, curve) in enumerate(rules.items()):
        x, y = hull([point.expected_nfe for point in curve], [point.kl for point in curve])
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        # rules often reach the same numbers: widths differ so that both are seen
        axes.plot(x, y, color=colour, linestyle=dash, label=rule, linewidth=max(1.2, 4 - 0.3 * number))
    for number, row in enumerate(rows):
        if math.isfinite(row.kl):
            marker, size = _MARKERS[number % len(_MARKERS)], max(4, 13 - 2.5 * number)
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(row.expected_nfe, row.kl, marker, label=row.policy, markersize=size, color=colour)
    if points:  # a rule that counts several passes a step goes far beyond what one at a time costs
        most = max([blanks, *(row.expected_nfe for row in rows)])
        axes.set_xlim(1 - 0.04 * most, 1.04 * most)
    axes.set(title=title, xlabel="expected forward passes", ylabel="KL(joint ‖ law), nats")
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right upper", frameon=False)
    save(figure, path)


def save(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Writes a picture whole or not at all, in the format of its ending; without a date."""
    drawn, kind = BytesIO(), path.suffix.lower().removeprefix(".")
    figure.savefig(drawn, format=kind, dpi=dpi or "figure", metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, drawn.getvalue())
