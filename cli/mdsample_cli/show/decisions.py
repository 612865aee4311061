"""What `mdsample score` shows: texts of one slot, or the labels of several and what is none of them."""

from __future__ import annotations

import math

from rich.console import Console, RenderableType

from mdsample.scoring.decide import Decisions
from mdsample.scoring.score import Scores
from mdsample_cli.show import render

#: columns of a bar for a share of 1
_BAR = 24


def tables(out: Console, scores: Scores | Decisions) -> list[RenderableType]:
    """A table a slot, an empty line between them."""
    if isinstance(scores, Scores):
        lines = [[name, log, share, bar] for name, log, _, share, bar in _lines(scores)]
        return [render.table(out, ["log p, nats", "share", ""], lines, first=scores.slot)]
    found: list[RenderableType] = []
    for slot in scores.slots:
        lines = [*_lines(slot), _outside(slot)]
        found += ["", render.table(out, ["log p, nats", "p", "share", ""], lines, first=slot.slot)]
    return found[1:]


def _lines(scores: Scores) -> list[list[str]]:
    return [
        [
            repr(candidate.text),
            f"{candidate.log_probability:.3f}"
            + (f" ± {1.96 * candidate.standard_error:.3f}" if candidate.standard_error else ""),
            _percent(math.exp(candidate.log_probability)),
            _percent(share),
            "█" * round(_BAR * share) + "·" * (_BAR - round(_BAR * share)),
        ]
        for candidate, share in zip(scores.candidates, scores.shares, strict=True)
    ]


def _outside(scores: Scores) -> list[str]:
    log = f"{math.log(scores.outside):.3f}" if scores.outside else "-inf"
    return ["anything else", log, _percent(scores.outside), "", ""]


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
