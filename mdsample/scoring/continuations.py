"""Continuations: the log-probability of token ids that follow others, in nats, as evaluation harnesses ask for it.

The row is the context and then the continuation, and nothing after it: the model knows how long the text is.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mdsample.core.arrays import arange64
from mdsample.core.canvas import Canvas
from mdsample.errors import ScoreError
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.arguments import as_batch_size
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.scoring.methods import Method
from mdsample.scoring.scorer import Scorer, standard_error


@attrs.frozen
class Asked:
    """Token ids, and what follows them."""

    context: tuple[int, ...]
    #: at least one token
    continuation: tuple[int, ...]
    #: of the question that it answers; continuations of one question see the same masks, which steadies differences
    question: int | str


@attrs.frozen
class Continuation:
    """How probable a continuation is."""

    #: nats; of `MonteCarloBound`, the estimate of its bound
    log_probability: float
    #: of the estimate; 0 where nothing was drawn
    standard_error: float
    #: whether every token was the most probable one, in the chain rule's order; `None`: another method does not know
    greedy: bool | None
    #: forward passes
    nfe: int


def continuations(
    denoiser: Denoiser, asked: Sequence[Asked], method: Method, *, batch_size: int = BATCH_SIZE
) -> list[Continuation]:
    """The log-probability of each continuation, by one method. Raises `ScoreError` before the first forward pass."""
    batch_size = as_batch_size(batch_size)
    for one in asked:
        if not one.continuation:
            raise ScoreError(f"the continuation of question {one.question!r} has no tokens; there is nothing to score")
        if (length := len(one.context) + len(one.continuation)) > denoiser.max_length:
            raise ScoreError(
                f"context and continuation of question {one.question!r} are {length} tokens; {denoiser.name} takes at "
                f"most {denoiser.max_length}"
            )
    if not asked:
        return []
    # neighbours in length share a forward pass, so that little of it is padding
    order = sorted(range(len(asked)), key=lambda n: -len(asked[n].context) - len(asked[n].continuation))
    found: dict[int, Continuation] = {}
    mask = denoiser.tokenizer.mask_id
    for first in range(0, len(order), batch_size):
        some = order[first : first + batch_size]
        rows = [asked[n] for n in some]
        slots = [[-1] * len(row.context) + [0] * len(row.continuation) for row in rows]
        texts = [[*row.context, *row.continuation] for row in rows]
        blank = Canvas.of_rows(texts, slots, ("text",), mask, some)
        full = Canvas.of_rows(texts, slots, ("text",), mask, some, [[False] * len(text) for text in texts])
        scorer = Scorer(denoiser, blank, full, arange64(len(rows)), 0, batch_size, [row.question for row in rows])
        samples, nfe, best = scorer.by(method)
        for line, n in enumerate(some):
            greedy = None if best is None else bool(best[line])
            drawn = samples[line]
            found[n] = Continuation(float(drawn.mean()), standard_error(drawn), greedy, int(nfe[line]))
    return [found[n] for n in range(len(asked))]
