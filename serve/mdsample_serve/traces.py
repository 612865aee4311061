"""Traces: steps as the page's player and saved traces have them, while they happen."""

from __future__ import annotations

from typing import Any

from mdsample.jobs.lines import finite
from mdsample.models.cache import cache_text
from mdsample.policy.complete import as_run
from mdsample.sampling import film
from mdsample.sampling.film import Pieces
from mdsample.sampling.trace import Trace, event_line
from mdsample_serve.answering import Answering, Look, Step
from mdsample_serve.service import Hosted


def header(answering: Answering, hosted: Hosted, pieces: Pieces) -> dict[str, Any]:
    """The header of a trace, with its rows under `canvas`; how many events there will be is not known yet."""
    model, sampler = hosted.worker.model, answering.ask.sampler
    trace = Trace(
        as_run(sampler.policy, model.block),
        sampler.seed,
        model.name,
        model.backend,
        model.tokenizer.mask_id,
        answering.first.canvas,
        (),
        cache_text(model.cache),
    )
    head, *rows = trace.lines()
    return film.header(head, rows, pieces, model.tokenizer.ends)


def beginning(answering: Answering, pieces: Pieces) -> list[dict[str, Any]]:
    """The steps before the first pass: what is written without asking the model."""
    return [film.step(event_line(event), pieces) for event in answering.first.events]


def step(news: Step, pieces: Pieces) -> dict[str, Any]:
    """A step of a trace, with the texts of what was written, and what was predicted where that was looked at."""
    found = film.step(event_line(news.event), pieces)
    if news.look is None:
        return found
    look = news.look
    best = {
        (row, position): (token, probability)
        for row, position, token, probability in zip(
            look.row.tolist(), look.position.tolist(), look.token.tolist(), look.probability.tolist(), strict=True
        )
    }
    others = [
        [{"text": pieces.written(best[place][0]), "probability": best[place][1]}]
        if place in best and best[place][0] != token
        else []
        for place, token in zip(
            zip(news.event.row.tolist(), news.event.position.tolist(), strict=True),
            news.event.token.tolist(),
            strict=True,
        )
    ]
    return {**found, "others": others, "look": _seen(look, pieces)}


def _seen(look: Look, pieces: Pieces) -> dict[str, Any]:
    """Of every position that was looked at: its two most probable tokens, their probabilities, the entropy."""
    return {
        "row": look.row.tolist(),
        "position": look.position.tolist(),
        "token": look.token.tolist(),
        "text": [pieces.written(token) for token in look.token.tolist()],
        "probability": look.probability.tolist(),
        "second": look.second.tolist(),
        "runner": [None if token < 0 else pieces.written(token) for token in look.runner.tolist()],
        "entropy": [finite(number) for number in look.entropy.tolist()],
    }
