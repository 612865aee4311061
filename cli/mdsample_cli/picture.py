"""The frontier as a picture: accuracy against forward passes, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mdsample.bench import PolicyScore
from mdsample_cli import shared
from mdsample_cli.shared import Wrong

_KINDS = (".svg", ".png", ".pdf")
_MARKS = "osD^v<>P*X"


def check(path: Path) -> None:
    """Refuses, before anything is computed, what cannot be drawn or written."""
    if path.suffix.lower() not in _KINDS:
        raise Wrong(f"--plot takes a file that ends in {', '.join(_KINDS)}; got {path}")
    shared.writable(path, "--plot")
    if find_spec("matplotlib") is None:
        raise Wrong("--plot needs matplotlib: pip install 'mdsample[plot]'")


def draw(scores: Sequence[PolicyScore], policies: Sequence[str], path: Path) -> None:
    """One point for each score, a colour for each policy and a mark for each model; `policies` in the scores' order."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "bench"})
    figure: Any = Figure(figsize=(8.0, 4.8), layout="constrained")
    axes: Any = figure.subplots()
    models = list(dict.fromkeys(score.model for score in scores))
    for number, score in enumerate(scores):
        policy, x, y = policies[number % len(policies)], score.nfe, score.accuracy
        which = models.index(score.model)
        axes.errorbar(
            x.value,
            100 * y.value,
            xerr=[[x.value - x.low], [x.high - x.value]],
            yerr=[[100 * (y.value - y.low)], [100 * (y.high - y.value)]],
            fmt=_MARKS[which % len(_MARKS)],
            color=f"C{number % len(policies) % 10}",
            ms=5,
            lw=1,
            label=policy if len(models) == 1 else f"{policy}, {score.model}",
        )
    axes.set(xlabel="forward passes a row", ylabel="accuracy, %")
    axes.set_title(f"{scores[0].task}, {scores[0].limit} problems; bars are 95 % intervals", loc="left")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
