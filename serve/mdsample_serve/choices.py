"""Choices: rows as OpenAI's clients read them, whole or in chunks, and what they cost."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from typing import Any, final

import attrs

from mdsample._version import __version__
from mdsample.core.tokens import Tokenizer
from mdsample.sampling.row import Row, pieces
from mdsample_serve import bodies
from mdsample_serve.asking import Ask
from mdsample_serve.reading import Share
from mdsample_serve.service import Hosted


@final
@attrs.frozen
class Shape:
    """How an answer looks."""

    hosted: Hosted
    body: bodies.OpenAI
    seed: int
    prefix: str
    kind: str
    with_logprobs: bool
    id: str = attrs.field(init=False, factory=lambda: secrets.token_hex(12))
    created: int = attrs.field(init=False, factory=lambda: int(time.time()))

    @property
    def is_chat(self) -> bool:
        """Whether it is a chat."""
        return self.prefix == "chatcmpl"

    def head(self, chunk: bool) -> dict[str, Any]:
        """What every object of the answer begins with."""
        return {
            "id": f"{self.prefix}-{self.id}",
            "object": self.kind + (".chunk" if chunk and self.is_chat else ""),
            "created": self.created,
            "model": self.hosted.name,
            "system_fingerprint": f"mdsample-{__version__}-{self.hosted.worker.model.backend}",
            "seed": self.seed,
        }

    def choice(self, index: int, text: str, finish: str | None, logprobs: Any, *, chunk: bool) -> dict[str, Any]:
        """A row, or what is new of it."""
        if not self.is_chat:
            return {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}
        if chunk:
            delta = {"content": text} if text or finish is None else {}
            return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}

    def opening(self, index: int, before: str) -> dict[str, Any] | None:
        """The first chunk of a row, if there is one."""
        if self.is_chat:
            return {
                "index": index,
                "delta": {"role": "assistant", "content": ""},
                "finish_reason": None,
                "logprobs": None,
            }
        return self.choice(index, before, None, None, chunk=True) if before else None


@attrs.frozen
class Finished:
    """A row that is done, as a choice tells it."""

    text: str
    finish: str
    logprobs: Any
    #: of its text, in slots
    tokens: int


def finished(shape: Shape, ask: Ask, place: int, row: Row) -> Finished:
    """A row that is done: its text up to where it stops, and why it ended there."""
    reader = ask.readers[place]
    told = reader.told(row.tokens, ~row.blank, whole=True)
    text, stopped = ask.stops.cut(told.text)
    done = stopped or told.ended or ask.structured is not None or row.outcome.name not in ("filled", "removed")
    shares = reader.shares(row.tokens, row.blank, len(text))
    before = len(ask.before[place]) if ask.before else 0
    logprobs = _logprobs(shape, reader.tokenizer, shares, row, before) if shape.with_logprobs else None
    return Finished(text, "stop" if done else "length", logprobs, sum(len(share.positions) for share in shares))


def _logprobs(shape: Shape, tokenizer: Tokenizer, shares: Sequence[Share], row: Row, before: int) -> dict[str, Any]:
    """Of each token that was written, its log-probability at that moment, given what was there by then.

    `before`: characters before the text, which is repeated after them.
    """
    written, texts, logs, offsets = row.written, list[str](), list[float](), list[int]()
    for share in shares:
        offset = before + share.offset
        parts = pieces(tokenizer, row.tokens[share.positions].tolist())
        for position, part in zip(share.positions, parts, strict=True):
            if position in written:
                texts.append(part)
                logs.append(max(-9999.0, math.log(max(written[position].probability, 1e-300))))
                offsets.append(offset)
            offset += len(part)
    if shape.is_chat:
        content = [
            {"token": text, "logprob": log, "bytes": list(text.encode()), "top_logprobs": []}
            for text, log in zip(texts, logs, strict=True)
        ]
        return {"content": content, "refusal": None}
    return {"tokens": texts, "token_logprobs": logs, "top_logprobs": None, "text_offset": offsets}


def usage(ask: Ask, rows: dict[int, Row], tokens: int) -> dict[str, Any]:
    """Tokens, and what they cost: forward passes, and how many of them followed one another."""
    prompt = sum(len(row.tokens) - sum(row.blank) for row in ask.rows)
    bounds = [row.error_bound for row in rows.values()]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "passes": sum(row.nfe for row in rows.values()),
        "rounds": max((row.rounds for row in rows.values()), default=0),
        "error_bound": sum(bounds) if all(map(math.isfinite, bounds)) else None,
    }
