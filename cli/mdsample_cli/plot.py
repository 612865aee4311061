"""The one picture that the command draws; matplotlib is an extra, and only partly typed."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mdsample.exact.audit import Audit, Point, hull
from mdsample_cli.shared import Wrong

#: rules often reach the same numbers: told apart by dashes and, on top of one another, by width
_DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
_MARKERS = "os^Dv*PX"


def draw(path: Path, title: str, rows: Sequence[Audit], points: Sequence[Point]) -> None:
    """KL over expected forward passes: policies as dots, what each rule can reach as a line."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rules: dict[str, list[Point]] = {}
    for point in points:
        rules.setdefault(point.rule, []).append(point)
    for number, (rule, curve) in enumerate(rules.items()):
        x, y = hull([point.expected_nfe for point in curve], [point.kl for point in curve])
        width = max(1.2, 4 - 0.6 * number)
        axes.plot(x, y, linestyle=_DASHES[number % len(_DASHES)], label=rule, linewidth=width)
    for number, row in enumerate(rows):
        if math.isfinite(row.kl):
            marker, size = _MARKERS[number % len(_MARKERS)], max(4, 13 - 2.5 * number)
            axes.plot(
                row.expected_nfe, row.kl, marker, label=row.policy, markersize=size, color=f"C{len(rules) + number}"
            )
    axes.set(title=title, xlabel="expected forward passes", ylabel="KL(joint ‖ law), nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path)
    except OSError as fault:
        raise Wrong(f"cannot write {path}: {fault.strerror or fault}") from fault
