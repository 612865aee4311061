"""Limits: what one request, and all of them together, may take of a server."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """The most of everything; what is more is refused before a forward pass, and says which limit it met."""

    #: bytes of a request's body
    body: int = 1 << 20
    #: rows of one request: prompts times `n`
    rows: int = 64
    #: rows of all requests that are not done; more is a 429
    queue: int = 256
    #: positions to fill in a row
    blanks: int = 2048
    #: forward passes of a row at one step, and positions that may be masked again
    passes: int = 64
    remasked: int = 4096
    #: guesses of a step
    guesses: int = 16
    #: labels of a request to be scored
    labels: int = 512
    #: texts at which a row stops
    stops: int = 16
    #: of the processor, in seconds, for all expressions of a request
    compile: float = 5.0
    #: seconds from a request's arrival to its end
    seconds: float = 300.0
    #: seconds in which a body has to arrive, and in which a reader has to take what is sent
    patience: float = 30.0
    #: seconds of silence on a stream, after which it gets a comment, so that nobody between takes it for dead
    heartbeat: float = 10.0
