"""The front door: `sample`, `stream` and `watch`, from prompts to rows of text in one call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import attrs
import numpy as np

from mdsample.core.canvas import identities
from mdsample.core.template import Template
from mdsample.errors import TemplateError, shown
from mdsample.models.cache import cache_text
from mdsample.models.chat import plain_template
from mdsample.models.decoding import default_text
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Part, Policy
from mdsample.sampling.arguments import as_policy
from mdsample.sampling.engine import BATCH_SIZE, Engine, fill
from mdsample.sampling.observe import answered
from mdsample.sampling.prepared import Prepared
from mdsample.sampling.prompts import Message, Prompt, is_chat, is_prompt, prepare_prompt
from mdsample.sampling.result import Samples
from mdsample.sampling.row import Row
from mdsample.sampling.sampler import Sampler, steps
from mdsample.sampling.speculate import Speculation
from mdsample.sampling.state import State

if TYPE_CHECKING:
    from mdsample.sampling.structured import Structured

#: texts of slots by name: for every row, or one mapping for each
Given = Mapping[str, str] | Sequence[Mapping[str, str]]


@attrs.frozen
class Step:
    """A row after one step of its run."""

    #: as it was after the step; its outcome is `unfinished` until the last one
    row: Row

    @property
    def text(self) -> str:
        """The whole row, blanks as ░; what this step wrote is between ‹ and ›."""
        return self.row.canvas_text(latest=self.row.steps - 1)

    def _repr_html_(self) -> str:
        return self.row._repr_html_()  # pyright: ignore[reportPrivateUsage]


@overload
def sample(  # pyright: ignore[reportOverlappingOverload]  # a text is an iterable of texts, but one prompt
    model: Denoiser,
    prompts: str | Mapping[str, str] | Sequence[Message] | Sequence[int],
    *,
    policy: Policy | Part | str | None = None,
    template: Template | str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    given: Given | None = None,
    ids: Sequence[int | str] | None = None,
    speculate: Speculation | int | str | None = None,
    returns: None = None,
) -> Row: ...
@overload
def sample(
    model: Denoiser,
    prompts: Iterable[Prompt],
    *,
    policy: Policy | Part | str | None = None,
    template: Template | str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    given: Given | None = None,
    ids: Sequence[int | str] | None = None,
    speculate: Speculation | int | str | None = None,
    returns: None = None,
) -> Samples: ...
@overload
def sample(
    model: Denoiser,
    prompts: Prompt | Iterable[Prompt],
    *,
    policy: Policy | Part | str | None = None,
    template: Template | str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    given: Given | None = None,
    ids: Sequence[int | str] | None = None,
    speculate: Speculation | int | str | None = None,
    returns: object,
) -> Any: ...
def sample(
    model: Denoiser,
    prompts: Prompt | Iterable[Prompt],
    *,
    policy: Policy | Part | str | None = None,
    template: Template | str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    given: Given | None = None,
    ids: Sequence[int | str] | None = None,
    speculate: Speculation | int | str | None = None,
    returns: object = None,
) -> Any:
    """Fills the template's slots for one prompt, which gives a `Row`, or for several, which give `Samples`.

    `prompts`: text, a mapping of fields, a chat (a list of messages) or token ids, or an iterable of these, see
    `mdsample.sampling.prompts`. `policy`: a policy, a part or text; by default the one that the model is published
    with, see `mdsample.models.decoding`. `template`:
    a template or its text; by default the model's own. `seed` and `ids` (of the rows, by default 0, 1, 2, …) fix every
    random number. `batch_size`: rows in one forward pass; it changes the time, not the texts. `given`: texts of slots
    that rows bring, one mapping for all rows or one for each. `speculate`: how many steps to guess, as in 8, or '8x2'
    with two guesses of each; fewer passes follow one another, and the texts stay the same
    (`mdsample.sampling.speculate`). `returns`: a dataclass, a pydantic model or a JSON schema (a mapping): it takes the
    place of the template's last slot (`mdsample.sampling.structured`), and what is given back are objects of it, one
    for one prompt, else a list. Raises `TemplateError`, `ModelError` or `PolicyError` before the first forward pass.
    """
    began = time.perf_counter()
    structured = None
    if returns is not None:
        # read once, as it may be an iterator: what the schema is put in hangs on whether prompts are chats
        prompts = prompts if is_prompt(prompts) or not hasattr(prompts, "__iter__") else list(prompts)  # pyright: ignore
        structured = _structured(model, prompts, returns, template)
    if structured is not None:
        chosen = default_text(model.policy, structured.template) if policy is None else policy
        policy, template = structured.policy(as_policy(chosen)), structured.template
    job = _job(model, prompts, policy, template, seed, given, ids)
    model.restart_peak_memory()
    rows = {row.id: row for row in _fill(job, batch_size, speculate)}
    ordered = tuple(rows[row.id] for row in job.rows)
    if structured is not None:
        values = [structured.value(row) for row in ordered]
        return values[0] if job.single else values
    if job.single:
        return ordered[0]
    seconds = time.perf_counter() - began
    facts = job.sampler.policy, job.sampler.seed, model.name, model.backend, cache_text(model.cache)
    return Samples(ordered, *facts, seconds, model.peak_memory)


def _structured(
    model: Denoiser, prompts: Prompt | Iterable[Prompt], returns: object, template: Template | str | None
) -> Structured:
    """The schema in the template, or in the model's own; around a chat, in its own as it is outside of one."""
    several = cast("Sequence[object]", [] if is_prompt(prompts) or not isinstance(prompts, list) else prompts)
    chats = [is_chat(prompt) for prompt in several or [prompts]]
    layout = _layout(model, template)
    if template is None and any(chats):
        if not all(chats):
            raise TemplateError(
                "returns= takes chats or other prompts, not both at once; give a template, or two calls"
            )
        layout = plain_template(model.tokenizer)
    # imported here: schemas take a tenth of the time that the package takes, and most programs have none
    from mdsample.sampling.structured import Structured

    return Structured.of(returns, layout, model.tokenizer)


def _layout(model: Denoiser, template: Template | str | None) -> Template:
    """The template, or the model's own."""
    if not hasattr(model, "predict"):
        raise TypeError(f"the model comes first, as mdsample.load gives it; got {type(model).__name__}")
    source = model.template if template is None else template
    return source if isinstance(source, Template) else Template.parse(source)


def stream(
    model: Denoiser,
    prompts: Prompt | Iterable[Prompt],
    *,
    policy: Policy | Part | str | None = None,
    template: Template | str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    given: Given | None = None,
    ids: Sequence[int | str] | None = None,
    speculate: Speculation | int | str | None = None,
) -> Iterator[Row]:
    """Rows as they finish, each as soon as it is done; `row.id` says whose it is. All prompts are read first.

    The arguments are those of `sample`.
    """
    return _fill(_job(model, prompts, policy, template, seed, given, ids), batch_size, speculate)


def watch(
    model: Denoiser,
    prompt: Prompt,
    *,
    policy: Policy | Part | str | None = None,
    template: Template | str | None = None,
    seed: int = 0,
    given: Mapping[str, str] | None = None,
    id: int | str = 0,
    speculate: Speculation | int | str | None = None,
) -> Iterator[Step]:
    """The row of one prompt after every step. The arguments are those of `sample`.

    With `speculate` the steps that follow from one pass come at once, and share what they cost. Where the template has
    a slot of unknown length, the candidates of each length take turns, and the best one comes once more in the end.
    """
    job = _job(model, prompt, policy, template, seed, given, [id])
    if not job.single:
        raise TemplateError("watch shows one prompt; give one, or take stream for several")
    return _steps(job, speculate)


@attrs.frozen
class _Job:
    """Prompts made ready for a model."""

    model: Denoiser
    sampler: Sampler
    slots: tuple[str, ...]
    rows: Sequence[Prepared]
    #: whether there was one prompt, not a list of them
    single: bool


def _fill(job: _Job, batch_size: int, speculate: Speculation | int | str | None) -> Iterator[Row]:
    return fill(job.sampler, job.model, job.slots, job.rows, batch_size=batch_size, speculate=speculate)


def _steps(job: _Job, speculate: Speculation | int | str | None) -> Iterator[Step]:
    model, sampler, row = job.model, job.sampler, job.rows[0]
    if row.lengths:
        yield from _steps_of_lengths(job, speculate)
        return
    canvas = row.canvas(job.slots, model.tokenizer.mask_id)
    plan = sampler.plan(model, canvas)
    speculator = sampler.speculator(plan, canvas, speculate)
    spent = None if speculator is None else speculator.spent
    state = sampler.start(model, canvas, plan)
    while not state.done:
        taken = answered(steps(plan, state, np.zeros(1, np.int32), speculator), model)
        for state, _ in taken:
            yield Step(sampler.result(model, state, spent=spent).rows[0])


def _steps_of_lengths(job: _Job, speculate: Speculation | int | str | None) -> Iterator[Step]:
    """The candidates take turns; the last step is the best one's, with what was tried."""
    taken: list[State] = []
    engine = Engine(job.model, on_step=taken.append, speculate=speculate)
    engine.add(job.rows, job.sampler, job.slots)
    more = True
    while more:
        yield from (Step(job.sampler.result(job.model, state).rows[0]) for state in taken if state.step[0])
        taken.clear()
        more = engine.step()
    yield from (Step(row) for _, row in engine.finished())


def _job(
    model: Denoiser,
    prompts: Prompt | Iterable[Prompt],
    policy: Policy | Part | str | None,
    template: Template | str | None,
    seed: int,
    given: Given | None,
    ids: Sequence[int | str] | None,
) -> _Job:
    layout = _layout(model, template)
    sampler = Sampler(default_text(model.policy, layout) if policy is None else policy, seed=seed)
    single = is_prompt(prompts)
    if not single and not hasattr(prompts, "__iter__"):
        raise TypeError(f"prompts are texts, mappings, chats or token ids; got {type(prompts).__name__}")
    listed = [prompts] if single else list(cast("Iterable[object]", prompts))
    names = range(len(listed)) if ids is None else identities(ids)
    nothing: Mapping[str, str] = {}
    brought = [given or nothing] * len(listed) if given is None or isinstance(given, Mapping) else given
    if not isinstance(brought, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"given is a mapping of slots to texts, or a list with one for each row; got {shown(given)}")
    for many, what in ((names, "ids"), (brought, "mappings of given texts")):
        if len(many) != len(listed):
            raise TemplateError(f"{len(listed)} prompts need as many {what}; got {len(many)}")
    rows: list[Prepared] = []
    for number, (prompt, name, slots) in enumerate(zip(listed, names, brought, strict=True)):
        try:
            rows.append(prepare_prompt(model, layout, template is None, name, prompt, slots))
        except (TemplateError, TypeError) as fault:
            if single:
                raise
            raise type(fault)(f"prompt {number}: {fault}") from fault
    return _Job(model, sampler, layout.slots, rows, single)
