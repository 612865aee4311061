"""Posterior traces: reasonings that a model writes when it is shown the answer as well as the question.

The answer is given, so what is sampled is the model's reasoning *given* that it ends there (arXiv 2510.19990, section
4). With one token a step at temperature 1 the law of the traces is the true posterior of the model's joint. How much
a trace makes of its answer is then asked with the answer hidden: log p(answer | a part of the reasoning), before, at
each quarter and after.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import Literal, get_args

import attrs
import numpy as np

from mdsample._version import versions
from mdsample.core.canvas import Canvas
from mdsample.core.template import Template
from mdsample.errors import TemplateError, TracesError
from mdsample.jobs.lines import finite
from mdsample.jobs.records import Record, Request, asked, fingerprint
from mdsample.models.chat import Chats
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.engine import BATCH_SIZE, fill, require_fit
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.sampling.result import Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation, require_exact
from mdsample.sampling.state import State
from mdsample.scoring.scorer import marginal_scores

#: shares of a reasoning's commits after which the answer is scored
STAGES = (0.0, 0.25, 0.5, 0.75, 1.0)
# JSON has no infinity; what is less probable than this is as good as impossible
_LEAST = -1e4


By = Literal["mean", "last"]


#: ids that would be taken for others
_AMBIGUOUS = re.compile(r'-?[0-9]+$|"')


@attrs.frozen
class Keep:
    """Which traces of a problem are kept: the best ones by their score, and not those below a limit.

    By `mean` the score is the mean over `STAGES` of log p(answer | the reasoning so far), by `last` that after the
    whole reasoning. One that jumps to its answer in the end makes it likely at last, but not on the way.
    """

    #: how many; `None`: all
    best: int | None = None
    #: nats; the score must be at least this
    min_score: float | None = None
    by: By = "mean"

    def __attrs_post_init__(self) -> None:
        """`TracesError` for limits that are none."""
        if self.best is not None and self.best < 1:
            raise TracesError(f"at least one trace is kept; got best={self.best}")
        if self.by not in get_args(By):
            raise TracesError(f"traces are kept by {' or '.join(get_args(By))}; got {self.by!r}")
        # unequal to itself, a NaN would also keep a file from being resumed
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise TracesError(f"the least score to be kept is a finite number of nats, as -0.1; got {self.min_score}")

    def choose(self, traces: Sequence[PosteriorTrace]) -> list[bool]:
        """For each trace whether it is kept; the earlier one of equals."""
        scores = [trace.scores[-1] if self.by == "last" else fmean(trace.scores) for trace in traces]
        order = sorted(range(len(traces)), key=lambda number: -scores[number])
        best = set(order if self.best is None else order[: self.best])
        least = -math.inf if self.min_score is None else self.min_score
        return [number in best and score >= least for number, score in enumerate(scores)]


@attrs.frozen
class PosteriorTrace:
    """One reasoning."""

    #: which of the problem's samples it is
    sample: int
    row: Row
    #: log p(answer | the reasoning so far) at each of `STAGES`, nats, by the product of marginals
    scores: tuple[float, ...]


@attrs.frozen(eq=False)
class Tracer:
    """Draws posterior traces: `n` for each request; duplicates are reported once."""

    denoiser: Denoiser
    template: Template
    sampler: Sampler
    #: the slot whose content every request brings, and the one in which reasonings are compared
    answer: str = attrs.field(default="answer", kw_only=True)
    n: int = attrs.field(default=8, kw_only=True, validator=attrs.validators.ge(1))
    keep: Keep = attrs.field(factory=Keep, kw_only=True)
    revision: str | None = attrs.field(default=None, kw_only=True)
    batch_size: int = attrs.field(default=BATCH_SIZE, kw_only=True)
    #: rows that are taken up at once, as in `engine.fill`
    chunk_size: int | None = attrs.field(default=None, kw_only=True)
    #: how many steps are guessed, see `mdsample.sampling.speculate`
    speculate: Speculation | None = attrs.field(default=None, kw_only=True)
    #: where messages of rows are put; by default around `template`
    chats: Chats = attrs.field(
        default=attrs.Factory(lambda tracer: Chats.of(tracer.denoiser, tracer.template), takes_self=True), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        """Raises `TemplateError`, `TracesError` or `PolicyError` if the pieces do not fit together."""
        self.template.check_given({self.answer: ""})
        if len(self.template.slots) < 2:
            raise TracesError(f"a trace needs a slot beside {self.answer!r}, in which it is written; add one")
        if self.speculate is not None:
            require_exact(self.denoiser)
        nothing = dict.fromkeys(self.template.fields, "")
        given = {self.answer: ""} if self.denoiser.tokenizer.end_id is not None else None
        row = prepare(self.denoiser, self.template, 0, nothing, given)
        require_fit(self.denoiser, self.sampler, self.template.slots, row)

    @property
    def fingerprint(self) -> Record:
        """What decides the records: two runs with the same fingerprint and requests give the same ones."""
        facts = fingerprint(self.denoiser, self.sampler, self.template, self.revision, self.speculate)
        return {**facts, "n": self.n, "keep": attrs.asdict(self.keep)}

    def prepare(self, request: Request) -> list[Prepared]:
        """The request's rows; raises `TemplateError` if it does not bring an answer that fits."""
        if request.error:
            raise TemplateError(request.error)
        if self.answer not in request.given:
            raise TemplateError(f"the row brings nothing for slot {self.answer!r}")
        template, texts = self.chats.placed(self.template, request.texts, request.messages)
        return [
            prepare(self.denoiser, template, f"{_name(request.id)}#{number}", texts, request.given)
            for number in range(self.n)
        ]

    def records(self, requests: Iterable[Request], on_step: Callable[[State], None] | None = None) -> Iterator[Record]:
        """A record for every request, as soon as all its traces are there, or it is known that there can be none.

        Requests are read as `engine.fill` takes rows up. `on_step` as there.
        """
        failed: list[Record] = []
        owner: dict[int | str, tuple[Request, int]] = {}

        def rows() -> Iterator[Prepared]:
            for request in requests:
                try:
                    prepared = self.prepare(request)
                except TemplateError as fault:
                    failed.append({"id": request.id, "error": str(fault)})
                    continue
                owner.update({row.id: (request, number) for number, row in enumerate(prepared)})
                yield from prepared

        waiting: dict[int | str, dict[int, Row]] = {}
        for row in fill(
            self.sampler,
            self.denoiser,
            self.template.slots,
            rows(),
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
            on_step=on_step,
            speculate=self.speculate,
        ):
            yield from failed
            failed.clear()
            request, number = owner.pop(row.id)
            done = waiting.setdefault(request.id, {})
            done[number] = row
            if len(done) == self.n:
                del waiting[request.id]
                yield self._record(request, [done[i] for i in range(self.n)])
        yield from failed

    def _record(self, request: Request, rows: Sequence[Row]) -> Record:
        unique = {tuple(row.tokens.tolist()): number for number, row in reversed(list(enumerate(rows)))}
        numbers = sorted(unique.values())
        scores = self.scores([rows[number] for number in numbers])
        traces = [PosteriorTrace(n, rows[n], by_stage) for n, by_stage in zip(numbers, scores, strict=True)]
        return {
            "id": request.id,
            **asked(request),
            "traces": [
                {
                    "sample": trace.sample,
                    "text": trace.row.text,
                    "slots": trace.row.slots,
                    "nfe": trace.row.nfe,
                    "rounds": trace.row.rounds,
                    "error_bound": finite(trace.row.error_bound),
                    "tv_bound": finite(trace.row.tv_bound),
                    "scores": [round(score, 6) for score in trace.scores],
                    "kept": kept,
                    **({"tried": [attrs.asdict(one) for one in trace.row.tried]} if trace.row.tried else {}),
                    **({"grown": [attrs.asdict(one) for one in trace.row.grown]} if trace.row.grown else {}),
                }
                for trace, kept in zip(traces, self.keep.choose(traces), strict=True)
            ],
            "stages": list(STAGES),
            "scoring_nfe": len(STAGES) * len(traces),
            **self.fingerprint,
            "backend": self.denoiser.backend,
            "approximate": self.denoiser.cache is not None and self.denoiser.cache.approximate,
            "versions": versions(),
        }

    def scores(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """log p(answer | reasoning so far) of finished rows at every stage; the answer hidden, one pass each."""
        mask_id, number = self.denoiser.tokenizer.mask_id, self.template.slots.index(self.answer)
        tokens: list[list[int]] = []
        blanks: list[list[bool]] = []
        for row in rows:
            places = [commit.position for commit in row.commits]
            for stage in STAGES:
                blank = row.slot == number
                blank[places[round(stage * len(places)) :]] = True
                tokens.append(np.where(blank, mask_id, row.tokens).tolist())
                blanks.append(blank.tolist())
        slots = [row.slot.tolist() for row in rows for _ in STAGES]
        canvas = Canvas.of_rows(tokens, slots, self.template.slots, mask_id, blank=blanks)
        whole = [row.tokens.tolist() for row in rows for _ in STAGES]
        full = Canvas.of_rows(whole, slots, self.template.slots, mask_id, blank=[[False] * len(row) for row in whole])
        hidden = canvas.slot == number
        scores = marginal_scores(self.denoiser, canvas, hidden, full.tokens, self.batch_size)
        return [tuple(by_stage.tolist()) for by_stage in np.maximum(scores, _LEAST).reshape(len(rows), len(STAGES))]


def _name(id: int | str) -> int | str:
    """An id as it stands before a trace's number: a text that looks like a number is in quotation marks."""
    return json.dumps(id) if isinstance(id, str) and _AMBIGUOUS.match(id) else id
