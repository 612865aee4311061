"""One forward pass for the steps of several policies: queries put together, and each its part of the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools
from mdsample.core.credits import Credits
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.models.denoiser import Denoiser, Prediction, Query, Tuning
from mdsample.policy.guide import Guide
from mdsample.sampling.observe import Asking
from mdsample.sampling.picked import Part

T = TypeVar("T")
S = TypeVar("S", np.int32, np.bool_)


def lockstep(denoiser: Denoiser, askings: Sequence[Asking[T]], salts: Sequence[int]) -> list[T]:
    """Runs to the end what asks for predictions; queries under one guide share a forward pass.

    `salts`: 0, or a number that tells rows of the same name apart, for each.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Query] = {}
    answers: dict[int, Prediction | None] = dict.fromkeys(range(len(askings)))
    while answers:
        for number, answer in answers.items():
            try:
                asking = askings[number]
                waiting[number] = next(asking) if answer is None else asking.send(answer)
            except StopIteration as end:
                results[number] = end.value
        answers = {}
        by_guide: dict[Guide, list[int]] = {}
        for number, query in waiting.items():
            by_guide.setdefault(query.guide, []).append(number)
        for numbers in by_guide.values():
            queries = [_salted(waiting.pop(number), salts[number]) for number in numbers]
            answers.update(zip(numbers, _predicted(denoiser, queries), strict=True))
    return [results[number] for number in range(len(askings))]


def _salted(query: Query, salt: int) -> Query:
    if not salt:
        return query
    keys = [(first, second ^ (salt << 40)) for first, second in query.rows.keys]
    return attrs.evolve(query, rows=Rows(keys, query.rows.steps))


def _predicted(denoiser: Denoiser, queries: Sequence[Query]) -> list[Prediction]:
    return divided(denoiser.predict(together(queries)), queries)


def divided(prediction: Prediction, queries: Sequence[Query]) -> list[Prediction]:
    """To each query its part of the prediction of them `together`."""
    first = np.cumsum([0, *(len(query.tokens) for query in queries)]).tolist()
    return [Part(prediction, start, *query.tokens.shape) for start, query in zip(first, queries, strict=False)]


def together(queries: Sequence[Query]) -> Query:
    """The rows of all queries, which are under one guide, one after the other."""
    if len(queries) == 1:
        return queries[0]
    restrictions = [query.restriction for query in queries]
    first = np.cumsum([0, *(len(query.tokens) for query in queries)]).tolist()
    # each restriction's sets follow those of the ones before it
    sets = np.cumsum([0, *(len(restriction.sets) for restriction in restrictions)]).tolist()
    index = [restriction.index + np.int32(start) for start, restriction in zip(sets, restrictions, strict=False)]
    return Query(
        _stacked([query.tokens for query in queries], 0),
        _stacked([query.valid for query in queries], False),
        _stacked([query.wanted for query in queries], False),
        _stacked([query.fixed for query in queries], False),
        Restriction(
            np.concatenate([restriction.sets for restriction in restrictions]),
            _stacked(index, 0),
            tuple(
                attrs.evolve(span, row=span.row + start)
                for restriction, start in zip(restrictions, first, strict=False)
                for span in restriction.spans
            ),
        ),
        queries[0].guide,
        Rows([key for query in queries for key in query.rows.keys], np.concatenate([q.rows.steps for q in queries])),
        tuning=_tunings(queries),
        memory=[kept for query in queries for kept in (query.memory or [None] * len(query.tokens))]
        if any(query.memory for query in queries)
        else (),
        remember=any(query.remember for query in queries),
        credits=_credits(queries),
    )


def _tunings(queries: Sequence[Query]) -> Tuning | None:
    tunings = [query.tuning for query in queries if query.tuning is not None]
    if not tunings:
        return None
    # under one guide all have one or none
    token = _stacked([tuning.token for tuning in tunings], -1)
    return Tuning(np.concatenate([tuning.divisor for tuning in tunings]), token, tunings[0].lowered)


def rows_of(query: Query, which: Bools) -> Query:
    """The rows of a query where `which [B]` is true."""
    restriction, number = query.restriction, np.cumsum(which) - 1
    spans = [attrs.evolve(span, row=int(number[span.row])) for span in restriction.spans if which[span.row]]
    return attrs.evolve(
        query,
        tokens=query.tokens[which],
        valid=query.valid[which],
        wanted=query.wanted[which],
        fixed=query.fixed[which],
        restriction=attrs.evolve(restriction, index=restriction.index[which], spans=tuple(spans)),
        rows=query.rows.take(np.flatnonzero(which)),
        tuning=None if query.tuning is None else query.tuning.take(np.flatnonzero(which)),
        credits=None if query.credits is None else query.credits.take(np.flatnonzero(which), query.tokens.shape[1]),
        memory=[kept for kept, taken in zip(query.memory, which.tolist(), strict=False) if taken],
    )


def _credits(queries: Sequence[Query]) -> Credits | None:
    """Those of all rows, if the guide has any."""
    found = [query.credits for query in queries if query.credits is not None]
    return Credits.joined(found, max(query.tokens.shape[1] for query in queries)) if found else None


def _stacked(arrays: Sequence[NDArray[S]], padding: int) -> NDArray[S]:
    """Arrays `[B, L]` of unequal length, one after the other, padded at the end."""
    width = max(array.shape[1] for array in arrays)
    padded = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=padding) for a in arrays]
    return np.concatenate(padded)
