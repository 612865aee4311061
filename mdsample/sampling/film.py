"""Film: a trace as the player in a browser takes it, JSON in which every token comes with its text.

A film is a trace's header with its rows under `canvas`, and one object for each event, both with a list `text` beside
their tokens. A text is a string, or the bytes of a token that is part of a letter: what it is depends on what will
stand beside it, which only the player knows at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from mdsample.core.tokens import Tokenizer, spelling
from mdsample.errors import ModelError
from mdsample.policy.complete import complete
from mdsample.policy.parsing import parse
from mdsample.sampling.result import bounded
from mdsample.sampling.trace import Trace

#: the text of a token, or the bytes of one that is part of a letter
Piece = str | list[int]


@final
class Pieces:
    """The texts of a tokenizer's tokens, each by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Reads the tokenizer once."""
        self._tokenizer = tokenizer
        self._special = {tokenizer.special_id(text): text for text in tokenizer.special}
        try:
            self._bytes = spelling(tokenizer).texts
        except ModelError:  # its decoder does more than put tokens together; one by one is the best there is
            self._bytes = ()

    def written(self, token: int) -> Piece:
        """Of a token that a model wrote; a special token is spelled out."""
        raw = self._bytes[token] if token < len(self._bytes) else None
        if raw is None:
            return self._special.get(token) or self._tokenizer.decode([token]) or f"[{token}]"
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return [*raw]

    def fixed(self, token: int) -> Piece:
        """Of a token that was there from the beginning; a special token is left out, as in `decode`."""
        unseen = token in self._special or token in self._tokenizer.ends or token == self._tokenizer.mask_id
        return "" if unseen else self.written(token)


def header(head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], pieces: Pieces, ends: frozenset[int]) -> Any:
    """A film's header: a trace's, with its rows, which tokens end a text, and the passes that one look costs.

    Of each row also its fixed texts, and whether `bounded` has bounds for it.
    """
    policy = complete(parse(head["policy"]))
    canvas: list[dict[str, Any]] = []
    for row in rows:
        slot, blank = np.array([row["slot"]], np.int32), np.array([row["blank"]], np.bool_)
        known = bool(bounded(policy, head.get("noise", "mask"), slot, blank, head["slots"])[0])
        canvas.append({**row, "text": [pieces.fixed(token) for token in row["tokens"]], "bounded": known})
    return {**head, "ends": sorted(ends), "passes": policy.guide.passes, "canvas": canvas}


def step(event: Mapping[str, Any], pieces: Pieces) -> dict[str, Any]:
    """A film's step: an event of a trace, with the texts of what was written."""
    return {**event, "text": [pieces.written(token) for token in event["token"]]}


def film(trace: Trace, tokenizer: Tokenizer) -> dict[str, Any]:
    """The film of a whole trace: `header` and `steps`."""
    head, *lines = trace.lines()
    rows, events = lines[: head["rows"]], lines[head["rows"] :]
    pieces = Pieces(tokenizer)
    return {
        "header": header(head, rows, pieces, tokenizer.ends),
        "steps": [step(event, pieces) for event in events],
    }
