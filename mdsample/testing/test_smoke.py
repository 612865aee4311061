"""Tries an installation, from anywhere: `pytest --pyargs mdsample.testing`. Needs pytest and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from mdsample._version import __version__
from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.exact.divergence import tv
from mdsample.exact.law import law
from mdsample.exact.toys import TOYS
from mdsample.models.find import embedded_models
from mdsample.policy.parsing import parse
from mdsample.sampling.api import sample
from mdsample.tasks.catalog import task_for
from mdsample.testing.promises import a_trace_replays, keeps_its_promises, rows_are_independent
from mdsample.testing.toys import ScriptedDenoiser, Symbols

_PACKAGES = (
    "mdsample",
    "mdsample_cli",
    "mdsample_integrations",
    "mdsample_mlx",
    "mdsample_serve",
    "mdsample_torch",
)
_POLICIES = ("med+early-exit", "eb(0.2)+temperature(1)", "remdm(steps=8)", "klass", "whole+margin+top(2)")


def command(*arguments: str) -> str:
    """What the command prints."""
    ran = subprocess.run([sys.executable, "-m", "mdsample_cli", *arguments], capture_output=True, timeout=300)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


def test_the_version_is_that_of_the_distribution() -> None:
    """One version."""
    assert version("mdsample") == __version__
    assert __version__ in command("--version")


@pytest.mark.parametrize("name", _PACKAGES)
def test_packages_are_there_and_typed(name: str) -> None:
    """PEP 561's marker lies beside the code."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).with_name("py.typed").is_file()


def test_entry_points_are_registered() -> None:
    """The command and the backends."""
    backends = {entry.name: entry for entry in entry_points(group="mdsample.backends")}
    assert {"reference", "torch", "mlx"} <= backends.keys() and callable(backends["reference"].load())
    [script] = entry_points(group="console_scripts", name="mdsample")
    assert callable(script.load())


@pytest.mark.parametrize("name", embedded_models())
def test_embedded_models_solve_their_first_problem(name: str) -> None:
    """Weights, tokenizers and tasks are part of the package."""
    model = load(name, backend="reference")
    task = task_for(model)
    assert task is not None
    problem = task.read()[0]
    policy = "med+early-exit" if name == "tiny-gsm" else "whole+margin+top(1)"
    row = sample(model, [problem.texts], given=[problem.given], policy=policy)[0]
    assert task.correct(row, problem), row.text


def test_the_command_answers() -> None:
    """From a prompt to a record."""
    record = json.loads(command("run", "Ann has 3 coins. Ben has 4 more than Ann. How many coins has Ben?", "--json"))
    assert record["slots"]["answer"] == "7" and record["versions"]["mdsample"] == __version__


@pytest.mark.parametrize("text", _POLICIES)
def test_policies_keep_their_promises(text: str) -> None:
    """They end, leave fixed text alone, treat rows alone, and replay."""
    policy, model = parse(text), ScriptedDenoiser(Symbols(3))
    assert parse(str(policy)) == policy
    canvas = Template.parse("a{prompt}{text:5}b{answer:2}").canvas(model.tokenizer, [{"prompt": "ab"}, {"prompt": "b"}])
    a_trace_replays(keeps_its_promises(policy, model, canvas), model)
    rows_are_independent(policy, model, canvas)


def test_a_slot_is_in_its_language() -> None:
    """A regular expression holds in whatever order a slot is filled."""
    policy = parse("random+top(2)+temperature(1)+regex('(ab)+|c{1,6}',slot='text')")
    rows = sample(ScriptedDenoiser(Symbols(3)), ["a"] * 8, policy=policy, template="{prompt}{text:6}")
    assert all(re.fullmatch("(ab)+|c{1,6}", row.slots["text"]) for row in rows)


@pytest.mark.parametrize("name", TOYS)
def test_one_at_a_time_is_exact(name: str) -> None:
    """One token a step at temperature 1 is the joint distribution."""
    toy = TOYS[name]()
    assert tv(toy, law(parse("whole+left-to-right+top(1)+temperature(1)"), toy)) < 1e-9
