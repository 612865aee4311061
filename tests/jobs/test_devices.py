"""Several processes with a model each: the rows of one process, also if some die."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from commands import is_refused
from crews import Faulty, load, load_patient
from mdsample_cli.main import main

from mdsample.core.template import Template
from mdsample.errors import CrewError
from mdsample.evaluation.bench import Runs
from mdsample.jobs.crew import records
from mdsample.jobs.devices import devices
from mdsample.jobs.job import Job
from mdsample.jobs.posterior import Tracer
from mdsample.jobs.records import Request
from mdsample.policy.parsing import parse
from mdsample.sampling.sampler import Sampler
from mdsample.tasks.catalog import Problem, Task

LAYOUT = Template.parse("{prompt}{answer:5}")
REQUESTS = [Request(n, {"prompt": "abcdef"[n % 6] + "ab"}) for n in range(40)]
#: rows on which `fails` does not fail, and problems on some of which it does
SOUND = [request for request in REQUESTS if request.id % 6 != 5]  # type: ignore[operator]
PROBLEMS = tuple(Problem(n, {"prompt": "abcdef"[n % 6] + "ab"}, "a") for n in range(12))
POLICY = Sampler(parse("random+top(2)+temperature(1)"), seed=3)


def job_on(model: Any) -> Job:
    return Job(model, LAYOUT, POLICY, batch_size=3)


def sorted_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    # the versions are those of what a process has loaded, and this one may have run tests of other backends
    return sorted(json.dumps({**record, "versions": {}}) for record in found)


def test_rows_are_those_of_one_process_to_the_byte_whoever_dies(tmp_path: Path) -> None:
    job, told = job_on(Faulty()), list[str]()
    wanted = sorted_lines(list(job.records(REQUESTS)))
    traced = Tracer(Faulty(), Template.parse("{prompt}{a:3}{answer:2}"), POLICY, n=2, batch_size=3)
    asked = [attrs.evolve(request, given={"answer": "ab"}) for request in REQUESTS[:8]]
    with devices(partial(load_patient, tmp_path), ["cpu", "dies:6", "cpu"], told.append) as crew:
        assert sorted_lines(list(records(crew, job_on(crew.model), REQUESTS))) == wanted
        assert len(told) == 1 and "the process on dies:6 was killed (signal 9)" in told[0]
        # the crew goes on with another work
        by_crew = records(crew, attrs.evolve(traced, denoiser=crew.model), asked)
        assert sorted_lines(list(by_crew)) == sorted_lines(list(traced.records(asked)))


def test_a_row_on_which_the_model_fails_is_a_record_with_an_error_and_the_last_to_die_ends_the_job() -> None:
    with devices(load, ["fails"]) as crew:
        found = {record["id"]: record for record in records(crew, job_on(crew.model), REQUESTS)}
    failed = {name for name, record in found.items() if record.get("error") == "RuntimeError: out of memory"}
    assert failed == {n for n in range(40) if n % 6 == 5} and len(found) == 40
    assert not any("error" in record for name, record in found.items() if name not in failed)
    with devices(load, ["dies:4"]) as crew, pytest.raises(CrewError, match="no process is left"):
        list(records(crew, job_on(crew.model), REQUESTS))
    with pytest.raises(CrewError, match="ended with code 3 while it opened"), devices(load, ["absent"]):
        pass


def test_what_was_left_of_one_work_is_no_part_of_the_next() -> None:
    wanted = sorted_lines(list(job_on(Faulty()).records(REQUESTS)))
    with devices(load, ["cpu", "cpu"]) as crew:
        other = attrs.evolve(job_on(crew.model), sampler=Sampler(parse("top(1)"), seed=1))
        unread = records(crew, other, REQUESTS)
        next(unread)
        unread.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert sorted_lines(list(records(crew, job_on(crew.model), REQUESTS))) == wanted
    task = Task("toy", "", str(LAYOUT), lambda: PROBLEMS, lambda row: row.slots["answer"], ("answer",))
    with devices(load, ["cpu", "fails"]) as crew:
        runs = Runs.of(crew.model, task, None, None, 0, 2, None, None, crew=crew)
        with pytest.raises(CrewError, match="out of memory"):
            runs.run(POLICY.policy, *runs.begin(POLICY.policy))
        assert sorted_lines(list(records(crew, job_on(crew.model), SOUND))) == sorted_lines(
            list(job_on(Faulty()).records(SOUND))
        )


def test_a_comparison_has_the_answers_of_one_process() -> None:
    problems = tuple(Problem(n, {"prompt": "ab"}, "a") for n in range(12))
    task = Task("toy", "", str(LAYOUT), lambda: problems, lambda row: row.slots["answer"], ("answer",))

    def answers(model: Any, crew: Any = None) -> Any:
        runs = Runs.of(model, task, None, None, 0, 2, None, None, crew=crew)
        rows = runs.run(POLICY.policy, *runs.begin(POLICY.policy))
        return [attrs.evolve(row, seconds=0.0) for row in rows]

    with devices(load, ["cpu", "cpu"]) as crew:
        assert answers(crew.model, crew) == answers(Faulty())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": n, "prompt": "1 +"}) + "\n" for n in range(6)))
    line = ["run", "-t", "{prompt}{answer:2}", "-i", str(tmp_path / "in.jsonl"), "--backend", "reference"]
    line += ["-p", "med+temperature(1)", "--batch-size", "1"]
    assert main([*line, "-o", str(tmp_path / "one")]) == 0
    assert main([*line, "--devices", "cpu,cpu", "-o", str(tmp_path / "two")]) == 0
    one, two = (
        sorted_lines([json.loads(line) for line in (tmp_path / name).read_text().splitlines()])
        for name in ("one", "two")
    )
    assert one == two and len(one) == 6 and "6 rows answered" in capsys.readouterr().err
    is_refused([*line, "--devices", "cpu,cpu"], "give --output FILE", capsys)
    is_refused([*line, "--devices", "cpu,,cpu", "-o", "x"], "--devices takes names", capsys)
    is_refused([*line, "--devices", "cpu", "--device", "cpu", "-o", "x"], "one of the two", capsys)
    is_refused([*line, "--devices", "cpu,nowhere", "-o", str(tmp_path / "x")], "on nowhere:", capsys)
