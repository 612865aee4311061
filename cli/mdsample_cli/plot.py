"""The one picture that the command draws; matplotlib is an extra, and only partly typed."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mdsample.exact.audit import Audit, Point, hull
from mdsample_cli.shared import Wrong


def draw(path: Path, title: str, rows: Sequence[Audit], points: Sequence[Point]) -> None:
    """KL over expected forward passes: policies as dots, what each rule can reach as a line."""
    try:
        from matplotlib.figure import Figure
    except ImportError as fault:
        raise Wrong("--plot needs matplotlib: pip install 'mdsample[plot]'") from fault
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rules: dict[str, list[Point]] = {}
    for point in points:
        rules.setdefault(point.rule, []).append(point)
    for rule, curve in rules.items():
        x, y = hull([point.expected_nfe for point in curve], [point.kl for point in curve])
        axes.plot(x, y, label=rule, linewidth=1.5)
    for row in rows:
        if math.isfinite(row.kl):
            axes.plot(row.expected_nfe, row.kl, "o", label=row.policy)
    axes.set(title=title, xlabel="expected forward passes", ylabel="KL(joint ‖ law), nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    try:
        figure.savefig(path)
    except OSError as fault:
        raise Wrong(f"cannot write {path}: {fault.strerror or fault}") from fault
