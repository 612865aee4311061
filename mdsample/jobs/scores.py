"""Scores of many requests: texts of one slot, or the labels of several and what is none of them, as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import attrs

from mdsample._version import versions
from mdsample.core.template import Template
from mdsample.errors import MdsampleError
from mdsample.jobs.lines import finite
from mdsample.jobs.records import Record, Request, asked
from mdsample.models.cache import cache_text
from mdsample.models.chat import Chats
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.sampling.prepared import prepare
from mdsample.scoring.decide import Decisions, check_labels, decide
from mdsample.scoring.methods import Method, MonteCarloBound
from mdsample.scoring.score import Candidate, Scores, check_candidates, score


@attrs.frozen(eq=False)
class ScoreJob:
    """Scores the texts that requests bring, or the same ones for every request."""

    denoiser: Denoiser
    template: Template
    chats: Chats = attrs.field(kw_only=True)
    #: where texts without a slot are scored
    slot: str = attrs.field(kw_only=True)
    method: Method = attrs.field(kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)
    revision: str | None = attrs.field(default=None, kw_only=True)
    batch_size: int = attrs.field(default=BATCH_SIZE, kw_only=True)
    #: texts, or labels by slot, for requests that bring none
    texts: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    labels: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], kw_only=True)

    @property
    def fingerprint(self) -> Record:
        """What decides the records besides their requests."""
        return {
            "method": str(self.method),
            "model": self.denoiser.name,
            **({} if self.revision is None else {"revision": self.revision}),
            "template": str(self.template),
            "seed": self.seed,
            "cache": cache_text(self.denoiser.cache),
        }

    def asking(self, request: Request) -> Request:
        """The request with the texts that all are scored with, if it brings none."""
        if request.choices or request.labels or not (self.texts or self.labels):
            return request
        return attrs.evolve(request, choices=self.texts, labels=self.labels)

    def asking_all(self, requests: Iterable[Request]) -> Again:
        """All of them with their texts."""
        return Again(self, requests)

    def answers(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Scores | Decisions | str]]:
        """Each request with its scores, or with why there are none, in their order."""
        rest = map(self.asking, requests)
        while batch := list(islice(rest, self.batch_size)):
            placed = [self._placed(request) for request in batch]
            scores: dict[int, Scores | Decisions] = {}
            # rows of one template are scored together; chats of other turns are in another
            fitting = {i: where for i, where in enumerate(placed) if not isinstance(where, str)}
            for template, by_slot in dict.fromkeys((where[0], bool(batch[i].labels)) for i, where in fitting.items()):
                good = {
                    i: texts
                    for i, (of_row, texts) in fitting.items()
                    if of_row == template and bool(batch[i].labels) == by_slot
                }
                done = self._together(template, [batch[i] for i in good], [*good.values()])
                scores.update(zip(good, done, strict=True))
            for i, (request, where) in enumerate(zip(batch, placed, strict=True)):
                yield request, where if isinstance(where, str) else scores[i]

    def records(self, requests: Iterable[Request]) -> Iterator[Record]:
        """The records of `answers`."""
        return (self.record(request, scores) for request, scores in self.answers(requests))

    def record(self, request: Request, scores: Scores | Decisions | str) -> Record:
        """A flat JSON object."""
        if isinstance(scores, str):
            return {"id": request.id, "error": scores}
        facts = self.fingerprint
        return {
            "id": request.id,
            **asked(request),
            **(scored(scores) if isinstance(scores, Scores) else decided(scores)),
            "method": facts["method"],
            "nfe": scores.nfe,
            "model": facts["model"],
            **({} if self.revision is None else {"revision": self.revision}),
            "template": facts["template"],
            "seed": self.seed,
            "backend": self.denoiser.backend,
            "cache": facts["cache"],
            "approximate": self.denoiser.cache is not None and self.denoiser.cache.approximate,
            "versions": versions(),
        }

    def _together(
        self, template: Template, requests: Sequence[Request], rows: Sequence[Mapping[str, str]]
    ) -> Sequence[Scores | Decisions]:
        """Rows of one template, all with texts or all with labels by slot."""
        given, ids = [request.given for request in requests], [request.id for request in requests]
        size, method = self.batch_size, self.method
        if requests[0].labels and not isinstance(method, MonteCarloBound):
            labels = [request.labels for request in requests]
            return decide(self.denoiser, template, rows, labels, method=method, given=given, ids=ids, batch_size=size)
        texts = [request.choices for request in requests]
        how = self.slot, texts
        return score(self.denoiser, template, rows, *how, method=method, given=given, ids=ids, batch_size=size)

    def _placed(self, request: Request) -> tuple[Template, Mapping[str, str]] | str:
        """A row's template and the texts of its fields, or why it cannot be scored; the other rows still are."""
        if request.error:
            return request.error
        try:
            if not request.labels:
                check_candidates(request.choices)
            elif isinstance(self.method, MonteCarloBound):
                raise MdsampleError(NO_BOUND)
            template, texts = self.chats.placed(self.template, request.texts, request.messages)
            if request.labels:
                check_labels(self.denoiser, template, request.labels, request.given)
                prepare(self.denoiser, template, request.id, texts, request.given)
            for text in request.choices:
                prepare(self.denoiser, template, request.id, texts, {**request.given, self.slot: text})
        except ValueError as error:
            return str(error)
        return template, texts


@attrs.frozen(eq=False)
class Again:
    """Requests with the texts that all are scored with, read anew each time."""

    job: ScoreJob
    requests: Iterable[Request]

    def __iter__(self) -> Iterator[Request]:
        """From the first one on."""
        return map(self.job.asking, self.requests)


#: why labels by slot are not scored by the bound
NO_BOUND = "--method bound gives no probabilities, and choices by slot take them; say chain or marginals"


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
