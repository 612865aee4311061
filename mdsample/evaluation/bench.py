"""Bench: accuracy against forward passes, policy by policy, on the same problems.

Accuracies come with Wilson's score interval, differences in accuracy with Newcombe's interval for paired proportions
(Statistics in Medicine 17, 1998, method 10), means with the normal interval over problems; all at 95 %.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from mdsample._version import versions
from mdsample.core.template import Template
from mdsample.errors import BenchError
from mdsample.evaluation.answers import Answered, Answers
from mdsample.evaluation.intervals import Interval, mean, paired_difference, share
from mdsample.jobs.crew import Crew, Filled
from mdsample.jobs.crew import rows as filled_rows
from mdsample.jobs.lines import finite
from mdsample.models.cache import cache_text
from mdsample.models.chat import Chats
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.complete import as_run
from mdsample.sampling.engine import BATCH_SIZE, fill, require_fit
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.sampling.result import Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation, as_speculation, require_exact
from mdsample.sampling.state import State
from mdsample.tasks.catalog import Problem, Task, source


@attrs.frozen
class PolicyScore:
    """How one policy did."""

    #: the policy, completed, with every setting written out
    policy: str
    task: str
    model: str
    backend: str
    #: what the model kept from look to look, as `mdsample.models.cache.read_cache` reads it
    cache: str
    template: str
    seed: int
    #: number of problems
    limit: int
    #: share of problems solved
    accuracy: Interval
    #: accuracy minus the first policy's, on the same problems
    difference: Interval
    #: mean forward passes of a row
    nfe: Interval
    #: mean number of passes that follow one another, of a row
    rounds: Interval
    #: the first policy's mean NFE over this one's: how many times fewer forward passes
    nfe_ratio: float
    #: blanks filled per forward pass, over all rows
    tokens_per_forward: float
    #: means over rows, see `Row`; that of `tv_bound` is at most 1
    error_bound: float
    tv_bound: float
    #: wall-clock seconds of all rows together
    seconds: float
    #: how answers were read, where the task has several ways; else empty
    extract: str = ""
    #: how many steps were guessed, as `mdsample.sampling.speculate` reads it; empty: none
    speculate: str = ""

    def record(self) -> dict[str, object]:
        """One flat JSON object; an interval becomes `name`, `name_low` and `name_high`."""
        flat: dict[str, object] = {}
        for name, value in attrs.asdict(self, recurse=False).items():
            if isinstance(value, Interval):
                flat |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                flat[name] = value
        for name in ("extract", "speculate"):
            if not flat[name]:
                del flat[name]
        return {**flat, "error_bound": finite(self.error_bound), "versions": versions()}


def bench(
    denoiser: Denoiser,
    task: Task,
    policies: Sequence[Policy],
    *,
    template: Template | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    answers: Answers | None = None,
    revision: str | None = None,
    chats: Chats | None = None,
    extract: str | None = None,
    watch: Callable[[Policy, int], None] | None = None,
    on_step: Callable[[State], None] | None = None,
    speculate: Speculation | int | str | None = None,
    crew: Crew | None = None,
) -> Iterator[PolicyScore]:
    """Runs each policy on the task's first `limit` problems (default: all) and yields its score as soon as it is known.

    `template` replaces the task's own; it has the same fields, and the slots that the task needs, of any length, around
    any text. The first policy is the one that others are compared with. What `answers` holds already is not computed
    again, and every new answer is written there; `revision`, of a model on the hub, is part of the model's name in it.
    `chats`: where messages of problems are put, by default around the template. `extract`: one of the task's ways to
    read an answer, by default the one that suits the template; what `answers` holds is read again in that way.
    `watch` is told after every row which policy is at work and how many of its rows are done; `on_step` as in
    `engine.fill`. `speculate` as in `Engine`: answers stay what they are, NFE and rounds do not. `crew`: who fills the
    rows, `denoiser` being what is known of their models; then there is no `on_step`. Raises `BenchError`,
    `PolicyError` where a policy does not fit the task, and `RecordError` where `answers` are to other problems, before
    the first forward pass.
    """
    if not policies:
        raise BenchError("there is nothing to compare; give at least one policy")
    runs = Runs.of(
        denoiser, task, template, limit, seed, batch_size, answers, revision, chats, extract, speculate, crew
    )
    jobs = [(policy, *runs.begin(policy)) for policy in policies]

    def scores() -> Iterator[PolicyScore]:
        first: list[Answered] = []
        for policy, key, done in jobs:
            rows = runs.run(policy, key, done, watch, on_step)
            first = first or rows
            yield _score(key, rows, first, runs.extract)

    return scores()


@attrs.frozen(eq=False)
class Runs:
    """The same problems for one policy after the other."""

    denoiser: Denoiser
    task: Task
    template: Template
    problems: tuple[Problem, ...]
    rows: list[Prepared]
    #: digits that tell the prompt of each row, by its id
    asked: Mapping[int | str, str]
    seed: int
    batch_size: int
    answers: Answers | None
    #: the model, with its revision if one was asked for
    model: str
    #: how answers are read, where the task has several ways; else empty
    extract: str
    #: how many steps are guessed
    speculate: Speculation | None
    #: who fills the rows, if not this process
    crew: Crew | None

    @staticmethod
    def of(
        denoiser: Denoiser,
        task: Task,
        template: Template | None,
        limit: int | None,
        seed: int,
        batch_size: int,
        answers: Answers | None,
        revision: str | None,
        chats: Chats | None = None,
        extract: str | None = None,
        speculate: Speculation | int | str | None = None,
        crew: Crew | None = None,
    ) -> Runs:
        """Arguments and errors as for `bench`."""
        guess = as_speculation(speculate)
        if guess is not None:
            require_exact(denoiser)
        problems = task.read()[:limit]
        if limit is not None and not 1 <= limit <= len(problems):
            raise BenchError(
                f"limit must lie between 1 and {len(task.read())}, the problems of {task.name}; got {limit}"
            )
        chosen = template or Template.parse(task.template)
        require_template(task, chosen)
        if extract is not None and extract not in task.extracts:
            ways = f"there are: {', '.join(task.extracts)}" if task.extracts else "its answers are read in one way"
            raise BenchError(f"{task.name} has no way {extract!r} to read an answer; {ways}")
        talks = chats or Chats.of(denoiser, chosen)
        placed = [talks.placed(chosen, problem.texts, problem.messages) for problem in problems]
        rows = [
            prepare(denoiser, layout, problem.id, texts, problem.given)
            for problem, (layout, texts) in zip(problems, placed, strict=True)
        ]
        model = denoiser.name if revision is None else f"{denoiser.name}@{revision}"
        return Runs(
            denoiser,
            task,
            chosen,
            problems,
            rows,
            {row.id: _asked(row) for row in rows},
            seed,
            batch_size,
            answers,
            model,
            extract or task.suits(chosen),
            guess,
            crew,
        )

    def begin(self, policy: Policy) -> tuple[dict[str, object], dict[int | str, Answered]]:
        """What decides a policy's answers, and those that are there already; `PolicyError` if it does not fit."""
        require_fit(self.denoiser, Sampler(policy, seed=self.seed), self.template.slots, self.rows[0])
        key: dict[str, object] = {
            "task": self.task.name,
            "model": self.model,
            "backend": self.denoiser.backend,
            "cache": cache_text(self.denoiser.cache),
            "policy": as_run(policy, self.denoiser.block),
            "template": str(self.template),
            "seed": self.seed,
            "speculate": "" if self.speculate is None else str(self.speculate),
        }
        expected = {problem.id: problem.answer for problem in self.problems}
        found = {} if self.answers is None else self.answers.found(key, expected, self.asked)
        read = {name: self._read_again(answered) for name, answered in found.items()}
        return key, {name: answered for name, answered in read.items() if answered is not None}

    def _read_again(self, answered: Answered) -> Answered | None:
        """A kept answer, read as is asked for now; `None` if its record lacks the text that this takes."""
        if not self.extract or answered.extract == self.extract:
            return answered
        text = answered.source
        if text is None:  # from before records said it
            slots = self.template.slots
            if self.extract == "first" and "answer" in slots:
                return answered  # as it was read then
            text = answered.text if "answer" not in slots or len(slots) == 1 else None
        if text is None:
            return None
        answer = self.task.extracts[self.extract](text)
        solved = self.task.same(answer, answered.expected)
        return attrs.evolve(answered, answer=answer, solved=solved, source=text, extract=self.extract)

    def run(
        self,
        policy: Policy,
        key: Mapping[str, object],
        done: dict[int | str, Answered],
        watch: Callable[[Policy, int], None] | None = None,
        on_step: Callable[[State], None] | None = None,
    ) -> list[Answered]:
        """Answers to all problems, in their order; `key` and `done` are those of `begin`."""
        by_id = {problem.id: problem for problem in self.problems}
        left = [row for row in self.rows if row.id not in done]
        if watch is not None:
            watch(policy, len(done))
        before, sampler = time.perf_counter(), Sampler(policy, seed=self.seed)
        for row in self._filled(sampler, left, on_step):
            now = time.perf_counter()
            answered = self._answered(row, by_id[row.id], now - before)
            done[row.id], before = answered, now
            if self.answers is not None:
                self.answers.write(key, answered, versions=versions())
            if watch is not None:
                watch(policy, len(done))
        return [done[problem.id] for problem in self.problems]

    def _filled(
        self, sampler: Sampler, left: Sequence[Prepared], on_step: Callable[[State], None] | None
    ) -> Iterator[Row]:
        """Rows as they finish, here or by a crew."""
        slots, size, guess = self.template.slots, self.batch_size, self.speculate
        if self.crew is None:
            return fill(sampler, self.denoiser, slots, left, batch_size=size, on_step=on_step, speculate=guess)
        return filled_rows(self.crew, Filled(sampler, slots, size, guess), left)

    def _answered(self, row: Row, problem: Problem, seconds: float) -> Answered:
        text = source(row) if self.extract else None
        answer = self.task.answer(row) if text is None else self.task.extracts[self.extract](text)
        return Answered(
            id=row.id,
            answer=answer,
            expected=problem.answer,
            solved=self.task.same(answer, problem.answer),
            text=row.text,
            nfe=row.nfe,
            steps=row.steps,
            rounds=row.rounds,
            filled=row.filled,
            error_bound=row.error_bound,
            tv_bound=row.tv_bound,
            seconds=seconds,
            source=text,
            extract=self.extract or None,
            asked=self.asked[row.id],
        )


def _asked(row: Prepared) -> str:
    """Digits that tell the prompt, as tokens and blanks."""
    return hashlib.sha256(np.array([row.tokens, row.blank], "<i4").tobytes()).hexdigest()[:16]


def require_template(task: Task, template: Template) -> None:
    """`BenchError` for a template that lacks what a task needs, or has other fields."""
    own = Template.parse(task.template)
    if set(template.fields) != set(own.fields) or not set(task.needs) <= set(template.slots):
        raise BenchError(
            f"a template for {task.name} has the fields of its own, {task.template!r:.200}, and its slots "
            f"({', '.join(task.needs) or 'any'}); got {str(template)!r:.200}"
        )


def _score(key: Mapping[str, Any], rows: Sequence[Answered], first: Sequence[Answered], extract: str) -> PolicyScore:
    solved, base = ([answered.solved for answered in answers] for answers in (rows, first))
    return PolicyScore(
        **key,
        limit=len(rows),
        accuracy=share(sum(solved), len(solved)),
        difference=paired_difference(solved, base) if rows is not first else Interval(0.0, 0.0, 0.0),
        nfe=mean([answered.nfe for answered in rows]),
        rounds=mean([answered.rounds for answered in rows]),
        nfe_ratio=sum(answered.nfe for answered in first) / max(1, sum(answered.nfe for answered in rows)),
        tokens_per_forward=sum(a.filled for a in rows) / max(1, sum(a.nfe for a in rows)),
        error_bound=sum(answered.error_bound for answered in rows) / len(rows),
        tv_bound=min(1.0, sum(answered.tv_bound for answered in rows) / len(rows)),
        seconds=sum(answered.seconds for answered in rows),
        extract=extract,
    )
