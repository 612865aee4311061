"""Scores as records: texts of one slot, or the labels of several and what is none of them."""

from __future__ import annotations

from mdsample.jobs.lines import finite
from mdsample.jobs.records import Record
from mdsample.scoring.decide import Decisions
from mdsample.scoring.score import Candidate, Scores


def scored(scores: Scores) -> Record:
    """What a record says of texts in one slot."""
    return {
        "slot": scores.slot,
        "best": scores.best.text,
        "candidates": [
            _candidate(candidate, share) for candidate, share in zip(scores.candidates, scores.shares, strict=True)
        ],
    }


def decided(decisions: Decisions) -> Record:
    """What a record says of labels in several slots."""
    return {
        "slots": {
            slot.slot: {key: value for key, value in scored(slot).items() if key != "slot"} | {"outside": slot.outside}
            for slot in decisions.slots
        }
    }


def _candidate(candidate: Candidate, share: float) -> Record:
    return {
        "text": candidate.text,
        "log_probability": finite(candidate.log_probability),
        "standard_error": candidate.standard_error,
        "share": share,
        "tokens": len(candidate.tokens),
    }
