"""Studies as TOML: tasks x models x policies x seeds in one file, read and checked before a model is opened.

    baseline = "one by one"          # what others are compared with; default: the first policy
    limit = 200                      # problems of each task; default: all
    seeds = [0]
    at = [20, 30]                    # compare rules at these numbers of forward passes
    against = "MED"                  # with this rule; default: the first of several settings

    [[tasks]]
    name = "tiny-gsm"                # also: problems, shots, shots_from, run_code, template, answer_field, extract,
                                     # limit, label

    [[models]]
    name = "tiny-gsm"                # also: backend, device, dtype, cache, revision, adapter, chat, label

    [policies]
    "one by one" = "entropy+top(1)"
    MED = ["med(0.2)", "med(0.8)"]   # a rule at several settings, drawn as one curve

Files and folders are named from the working directory, as on the command line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import attrs

from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.errors import BenchError, MdsampleError, SpecError
from mdsample.evaluation.bench import require_template
from mdsample.evaluation.toml_table import Entry, TomlFault, first_lines
from mdsample.models.chat import chat
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.parsing import parse
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.tasks.catalog import Task
from mdsample.tasks.named import Source, task_named

#: keys of a task that say how a published data set is asked
_SOURCE = ("shots", "shots_from", "run_code")
_DTYPES = ("float32", "bfloat16", "float16")


@attrs.frozen(eq=False)
class StudyTask:
    """A task of a study."""

    label: str
    task: Task
    template: Template | None
    #: how answers are read, where the task has several ways
    extract: str | None
    #: the first problems of it
    limit: int


@attrs.frozen
class StudyModel:
    """A model of a study, and what it runs on; names as `mdsample.load` takes them."""

    label: str
    name: str
    backend: str
    device: str | None
    dtype: str | None
    cache: str | None
    revision: str | None
    adapter: str | None
    #: whether templates are put into its chat template
    chat: bool

    def load(self) -> Denoiser:
        """The model, ready to predict; raises `ModelError`."""
        return load(
            self.name,
            self.backend,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            cache=self.cache,
            adapter=self.adapter,
        )

    def layout(self, task: StudyTask) -> Template | None:
        """The template that a task's problems are put into, `None` for the task's own."""
        if not self.chat:
            return task.template
        plain = task.task.template if task.template is None else str(task.template)
        return chat(self.name, plain, revision=self.revision)


@attrs.frozen
class Rule:
    """A policy, or one rule at several settings."""

    name: str
    texts: tuple[str, ...]
    policies: tuple[Policy, ...]


@attrs.frozen(eq=False)
class Study:
    """What is compared with what."""

    title: str
    tasks: tuple[StudyTask, ...]
    models: tuple[StudyModel, ...]
    #: the baseline first
    rules: tuple[Rule, ...]
    seeds: tuple[int, ...]
    batch_size: int
    #: numbers of forward passes at which rules are compared
    at: tuple[float, ...]
    #: the rule that they are compared with there; empty if none has several settings
    against: str
    #: the file's text
    text: str


def read_study(text: str, *, limit: int | None = None, title: str = "study") -> Study:
    """The study that a file's text says; `limit` takes the place of every limit there, `title` of a title.

    Raises `BenchError`, in one sentence that names the line or key. Problems are read, models are not.
    """
    try:
        whole = Entry("", tomllib.loads(text), first_lines(text))
        return _study(whole, text, limit, title)
    except tomllib.TOMLDecodeError as fault:
        raise BenchError(f"this is not TOML: {fault}") from None
    except RecursionError:
        raise BenchError("this is not TOML: it is nested too deeply") from None
    except TomlFault as fault:
        raise BenchError(str(fault)) from None


def _study(whole: Entry, text: str, limit: int | None, title: str) -> Study:
    whole.require_keys("title", "baseline", "limit", "seeds", "batch_size", "at", "against", *_TABLES)
    for name in _TABLES:
        if name not in whole:
            raise TomlFault(f"the study has no {name}; a study names tasks, models and policies")
    everywhere = whole.integer("limit", None, 1)
    rules = _rules(whole["policies"])
    named = {rule.name: rule for rule in rules}
    baseline = whole.choice("baseline", rules[0].name, named)
    if len(named[baseline].texts) > 1:
        raise whole["baseline" if "baseline" in whole else "policies"].fault(
            f"the baseline is one policy; {baseline!r} has {len(named[baseline].texts)} settings"
        )
    several = [rule.name for rule in rules if len(rule.texts) > 1]
    if "against" in whole and not several:
        raise whole["against"].fault("rules are compared along their settings; none has several")
    seeds = [seed.as_integer() for seed in whole["seeds"].items()] if "seeds" in whole else [0]
    points = [point.as_number(above=0) for point in whole["at"].items()] if "at" in whole else []
    if len(set(seeds)) < len(seeds):
        raise whole["seeds"].fault("a seed is there twice")
    tasks = [_task(entry, limit or entry.integer("limit", everywhere, 1)) for entry in whole["tasks"].items()]
    models = [_model(entry) for entry in whole["models"].items()]
    _require_different(whole["tasks"], [task.label for task in tasks])
    _require_different(whole["models"], [model.label for model in models])
    return Study(
        title=whole.text("title", title),
        tasks=tuple(tasks),
        models=tuple(models),
        rules=(named[baseline], *(rule for rule in rules if rule.name != baseline)),
        seeds=tuple(seeds),
        batch_size=whole.integer("batch_size", BATCH_SIZE, 1) or BATCH_SIZE,
        at=tuple(points),
        against=whole.choice("against", several[0], several) if several else "",
        text=text,
    )


_TABLES = ("tasks", "models", "policies")


def _rules(entry: Entry) -> list[Rule]:
    """Policies by name, or a list of policies, each of which is its own name."""
    named = entry.entries() if entry.is_table else {item.as_text(): item for item in entry.items()}
    rules: list[Rule] = []
    seen: dict[Policy, str] = {}
    for name, item in named.items():
        texts = item.items() if item.is_list else [item]
        policies: list[Policy] = []
        for text in texts:
            try:
                policies.append(parse(text.as_text()))
            except SpecError as fault:
                raise text.fault(str(fault)) from None
            if policies[-1] in seen:
                raise text.fault(f"this policy is there already, under {seen[policies[-1]]!r}")
            seen[policies[-1]] = name
        rules.append(Rule(name, tuple(text.as_text() for text in texts), tuple(policies)))
    return rules


def _task(entry: Entry, limit: int | None) -> StudyTask:
    entry.require_keys("name", "label", "problems", "template", "answer_field", "extract", "limit", *_SOURCE)
    name, problems = entry["name"].as_text(), entry.text("problems", "")
    source: Source | None = None
    if problems:
        examples = entry.text("shots_from", "")
        source = Source(
            Path(problems),
            entry.integer("shots", None, 0),
            Path(examples) if examples else None,
            entry.flag("run_code"),
        )
    elif alone := [key for key in _SOURCE if key in entry]:
        raise entry[alone[0]].fault("this is for published data sets, which have problems = '…'")
    template = entry.text("template", "") or None
    try:
        task = task_named(name, source, template, entry.text("answer_field", "answer"))
        layout = None if template is None else Template.parse(template)
        if layout is not None:
            require_template(task, layout)
        there = len(task.read())
    except MdsampleError as fault:
        raise entry.fault(str(fault)) from fault
    if limit is not None and limit > there:
        raise entry.fault(f"the limit must lie between 1 and {there}, the problems of {name}; got {limit}")
    extract = entry.text("extract", "") or None
    if extract is not None and extract not in task.extracts:
        ways = f"there are: {', '.join(task.extracts)}" if task.extracts else "its answers are read in one way"
        raise entry["extract"].fault(f"{name} has no way {extract!r} to read an answer; {ways}")
    return StudyTask(entry.text("label", name), task, layout, extract, limit or there)


def _model(entry: Entry) -> StudyModel:
    keys = ("backend", "device", "dtype", "cache", "revision", "adapter")
    entry.require_keys("name", "label", "chat", *keys)
    found = {key: entry.text(key, "") or None for key in keys}
    if found["dtype"] is not None:
        entry.choice("dtype", "", _DTYPES)
    name = entry["name"].as_text()
    return StudyModel(
        label=entry.text("label", name),
        name=name,
        backend=found["backend"] or "auto",
        device=found["device"],
        dtype=found["dtype"],
        cache=found["cache"],
        revision=found["revision"],
        adapter=found["adapter"],
        chat=entry.flag("chat"),
    )


def _require_different(entry: Entry, labels: Sequence[str]) -> None:
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise entry.fault(f"two are called {twice[0]!r}; give one of them another label = '…'")
