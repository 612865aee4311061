"""Running a study: cell by cell, each answer kept, a cell that fails no end of the others.

A cell is one policy with one model on one task, over all seeds. Accuracies of a single seed have Wilson's interval and
differences Newcombe's, as in `bench`; of several seeds see `clustered_share`. Means have the normal interval over
problems. All at 95 %.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import attrs
import numpy as np

from mdsample._version import versions
from mdsample.core.arrays import Bools, Doubles
from mdsample.errors import BenchError, RecordError, WriteError
from mdsample.evaluation.answers import KEY, Answered, Answers
from mdsample.evaluation.bench import Runs
from mdsample.evaluation.intervals import Interval, clustered_difference, clustered_share, mean
from mdsample.evaluation.study_file import Rule, Study, StudyModel, StudyTask
from mdsample.jobs.crew import Crew
from mdsample.jobs.lines import finite
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.sampling.state import State


@attrs.frozen(eq=False)
class Results:
    """Answers of a cell, `[problems, seeds]` each."""

    #: with every setting written out
    policy: str
    backend: str
    cache: str
    template: str
    solved: Bools
    #: forward passes
    nfe: Doubles
    filled: Doubles
    error_bound: Doubles
    tv_bound: Doubles
    #: wall-clock seconds
    seconds: Doubles


@attrs.frozen(eq=False)
class Cell:
    """A policy with a model on a task, and what came of it."""

    task: str
    model: str
    rule: str
    text: str
    results: Results | None
    #: that of the baseline on the same problems; `None` if it failed
    baseline: Results | None
    #: why there are no results; empty if there are
    error: str = ""

    @property
    def accuracy(self) -> Interval:
        """Share of problems solved."""
        return clustered_share(self._got.solved)

    @property
    def difference(self) -> Interval | None:
        """Accuracy minus the baseline's, on the same problems; `None` for the baseline, or if that failed."""
        if self.baseline is None or self.baseline is self.results:
            return None
        return clustered_difference(self._got.solved, self.baseline.solved)

    @property
    def nfe(self) -> Interval:
        """Mean forward passes of a row."""
        return mean(self._got.nfe.mean(1).tolist())

    @property
    def nfe_ratio(self) -> float | None:
        """How many times fewer passes than the baseline."""
        return None if self.baseline is None else float(self.baseline.nfe.sum() / max(1.0, self._got.nfe.sum()))

    @property
    def tokens_per_forward(self) -> float:
        """Blanks filled per forward pass, over all rows."""
        return float(self._got.filled.sum() / max(1.0, self._got.nfe.sum()))

    @property
    def error_bound(self) -> float:
        """Mean over rows, nats."""
        return float(self._got.error_bound.mean())

    def record(self, study: Study) -> dict[str, object]:
        """One flat JSON object; an interval becomes `name`, `name_low` and `name_high`."""
        named: dict[str, object] = {"rule": self.rule, "text": self.text, "task": self.task, "model": self.model}
        named |= {"seeds": list(study.seeds)}
        if self.results is None:
            return {**named, "error": self.error}
        got = self.results
        about = {"policy": got.policy, "backend": got.backend, "cache": got.cache, "template": got.template}
        flat: dict[str, object] = {**named, **about, "limit": len(got.solved)}
        for name, value in (("accuracy", self.accuracy), ("difference", self.difference), ("nfe", self.nfe)):
            if value is not None:
                flat |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        return {
            **flat,
            "nfe_ratio": self.nfe_ratio,
            "tokens_per_forward": self.tokens_per_forward,
            "error_bound": finite(self.error_bound),
            "tv_bound": min(1.0, float(got.tv_bound.mean())),
            "seconds": float(got.seconds.sum()),
            "versions": versions(),
        }

    @property
    def _got(self) -> Results:
        if self.results is None:
            raise BenchError(f"{self.text} has no results: {self.error}")
        return self.results


#: told the cell's text, and how many of the answers of all seeds there are
Watch = Callable[[str, int], None]
#: opens a model: here, or what is known of it and the crew that has it; on leaving it is let go
Open = Callable[[StudyModel], AbstractContextManager[tuple[Denoiser, Crew | None]]]


@contextmanager
def here(model: StudyModel) -> Generator[tuple[Denoiser, Crew | None]]:
    """In this process."""
    yield model.load(), None


def cells(
    study: Study,
    answers: Answers | None = None,
    watch: Watch | None = None,
    on_step: Callable[[State], None] | None = None,
    opened: Open = here,
) -> Iterator[Cell]:
    """The study's cells as they are known: model by model, task by task, the baseline first.

    What `answers` holds is not computed again, and every new answer is written there. `opened` says where models are;
    with a crew there is no `on_step`. A cell that raises is a cell with an error; only what concerns the file of
    answers (`WriteError`, `RecordError`) ends the study.
    """
    taken: dict[tuple[object, ...], str] = {}
    for model in study.models:  # each in a frame of its own, so that one is let go before the next is opened
        yield from _of_model(study, model, answers, taken, watch, on_step, opened)


def _of_model(
    study: Study,
    model: StudyModel,
    answers: Answers | None,
    taken: dict[tuple[object, ...], str],
    watch: Watch | None,
    on_step: Callable[[State], None] | None,
    opened: Open,
) -> Iterator[Cell]:
    """The cells of one model; `taken` says whose the answers of a cell are, by what decides them."""
    with ExitStack() as stack:
        try:
            denoiser, crew = stack.enter_context(opened(model))
        except Exception as fault:  # whatever keeps one model from opening, the others go on
            for task in study.tasks:
                yield from _failed(study, task, model, fault)
            return
        for task in study.tasks:
            try:
                runs = _runs(study, task, model, denoiser, answers, crew)
            except Exception as fault:
                yield from _failed(study, task, model, fault)
                continue
            baseline: Results | None = None
            for rule, text, policy in _policies(study):
                cell = Cell(task.label, model.label, rule.name, text, None, baseline)
                try:
                    results = _results(runs, policy, model.label, taken, text, watch, on_step)
                except (WriteError, RecordError):
                    raise
                except Exception as fault:
                    yield attrs.evolve(cell, error=_told(fault))
                else:
                    baseline = results if rule is study.rules[0] else baseline
                    yield attrs.evolve(cell, results=results, baseline=baseline)


def _runs(
    study: Study, task: StudyTask, model: StudyModel, denoiser: Denoiser, answers: Answers | None, crew: Crew | None
) -> list[Runs]:
    """The task's problems for each seed."""
    first = Runs.of(
        denoiser,
        task.task,
        model.layout(task),
        task.limit,
        study.seeds[0],
        study.batch_size,
        answers,
        model.revision,
        extract=task.extract,
        crew=crew,
    )
    return [attrs.evolve(first, seed=seed) for seed in study.seeds]


def _policies(study: Study) -> Iterator[tuple[Rule, str, Policy]]:
    for rule in study.rules:
        for text, policy in zip(rule.texts, rule.policies, strict=True):
            yield rule, text, policy


def _failed(study: Study, task: StudyTask, model: StudyModel, fault: Exception) -> Iterator[Cell]:
    for rule, text, _ in _policies(study):
        yield Cell(task.label, model.label, rule.name, text, None, None, _told(fault))


def _told(fault: Exception) -> str:
    """The fault's first line; what is no error of the library's own has its kind before it."""
    said = str(fault).strip().partition("\n")[0]
    return said if isinstance(fault, ValueError) and said else f"{type(fault).__name__}: {said}".removesuffix(": ")


def _results(
    runs: Sequence[Runs],
    policy: Policy,
    model: str,
    taken: dict[tuple[object, ...], str],
    text: str,
    watch: Watch | None,
    on_step: Callable[[State], None] | None,
) -> Results:
    rows: list[list[Answered]] = []
    before = 0
    key: Mapping[str, object] = {}
    for run in runs:
        key, done = run.begin(policy)
        called = tuple(key[name] for name in KEY)
        if taken.setdefault(called, model) != model:
            raise BenchError(
                f"its answers could not be told from those of {taken[called]}, the same model on the same backend; "
                "give one of them a study and an output of its own"
            )

        def count(_: Policy, answered: int, before: int = before) -> None:
            if watch is not None:
                watch(text, before + answered)

        rows.append(run.run(policy, key, done, count, on_step))
        before += len(rows[-1])
    return Results(
        policy=str(key["policy"]),
        backend=str(key["backend"]),
        cache=str(key["cache"]),
        template=str(key["template"]),
        solved=np.array([[answered.solved for answered in run] for run in rows], np.bool_).T,
        nfe=_column(rows, "nfe"),
        filled=_column(rows, "filled"),
        error_bound=_column(rows, "error_bound"),
        tv_bound=_column(rows, "tv_bound"),
        seconds=_column(rows, "seconds"),
    )


def _column(rows: Sequence[Sequence[Answered]], name: str) -> Doubles:
    return np.array([[getattr(answered, name) for answered in run] for run in rows], np.float64).T
