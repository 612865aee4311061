"""What `mdsample score` shows: texts of one slot, or the labels of several and what is none of them."""

from __future__ import annotations

import math

from rich.console import Console, RenderableType

from mdsample.jobs.lines import finite
from mdsample.jobs.records import Record
from mdsample.scoring.decide import Decisions
from mdsample.scoring.score import Candidate, Scores
from mdsample_cli.show import render

#: columns of a bar for a share of 1
_BAR = 24


def found(scores: Scores | Decisions) -> Record:
    """What a record says of them."""
    if isinstance(scores, Scores):
        return {
            "slot": scores.slot,
            "best": scores.best.text,
            "candidates": [
                _candidate(candidate, share) for candidate, share in zip(scores.candidates, scores.shares, strict=True)
            ],
        }
    return {
        "slots": {
            slot.slot: {key: value for key, value in found(slot).items() if key != "slot"} | {"outside": slot.outside}
            for slot in scores.slots
        }
    }


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


def _candidate(candidate: Candidate, share: float) -> Record:
    return {
        "text": candidate.text,
        "log_probability": finite(candidate.log_probability),
        "standard_error": candidate.standard_error,
        "share": share,
        "tokens": len(candidate.tokens),
    }


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
