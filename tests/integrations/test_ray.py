"""Ray on a local cluster of two machines: the rows of one process, whatever dies; skipped where Ray is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

ray = pytest.importorskip("ray", reason="Ray is missing: pip install 'mdsample[ray]'")
pytest.importorskip("ray.data", reason="Ray Data is missing: pip install 'mdsample[ray]'")

from crews import Faulty, load, load_deadly, load_mortal
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.main import main
from mdsample_integrations.ray import Actor, actors
from ray.cluster_utils import Cluster

from mdsample.core.template import Template
from mdsample.errors import CrewError
from mdsample.evaluation.answers import Answers
from mdsample.evaluation.study import cells
from mdsample.evaluation.study_file import read_study
from mdsample.jobs.crew import Filled, records, rows
from mdsample.jobs.job import Job
from mdsample.jobs.records import Request
from mdsample.policy.parsing import parse
from mdsample.sampling.prepared import prepare
from mdsample.sampling.sampler import Sampler

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.slow,
]
LAYOUT = Template.parse("{prompt}{answer:5}")
REQUESTS = [Request(n, {"prompt": "abcdef"[n % 6] + "ab"}) for n in range(200)]
POLICY = Sampler(parse("random+top(2)+temperature(1)"), seed=3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # actors find what tests share where the tests do
    helpers = str(Path(__file__).parents[1] / "helpers")
    os.environ["PYTHONPATH"] = os.pathsep.join([helpers, *filter(None, [os.environ.get("PYTHONPATH")])])
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def job_on(model: Any) -> Job:
    return Job(model, LAYOUT, POLICY, batch_size=3)


def test_actors_are_killed_and_a_machine_is_removed_and_every_row_is_there_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    wanted = sorted(json.dumps(record) for record in job_on(Faulty()).records(REQUESTS))
    other = cluster.add_node(num_cpus=2)
    deaths = 4
    found: list[str] = []
    # as large as what real models bring along, which Ray keeps in its store
    mortal = partial(load_mortal, str(tmp_path), deaths, bytes(300_000))
    with actors(cluster.address, mortal, 4, cpus=0.75) as crew:
        for record in records(crew, job_on(crew.model), REQUESTS):
            found.append(json.dumps(record))
            if other is not None and len(found) > 20:
                cluster.remove_node(other, allow_graceful=False)
                other = None
    assert sorted(found) == wanted
    assert other is None and len(list(tmp_path.iterdir())) == deaths


def test_rows_that_fail_are_records_with_an_error_and_comparisons_are_those_of_one_process(cluster: Cluster) -> None:
    some = [request for request in REQUESTS[:24]]
    prepared = [prepare(Faulty(), LAYOUT, request.id, request.texts) for request in some if request.id % 6 != 5]
    with actors(cluster.address, partial(load, "fails"), 2, cpus=0.5) as crew:
        bad = attrs.evolve(REQUESTS[0], id="x", error="line 3: it is no row")
        found = {record["id"]: record for record in records(crew, job_on(crew.model), [bad, *some])}
        filled = rows(crew, Filled(POLICY, LAYOUT.slots, 3, None), prepared)
        texts = {row.id: row.text for row in filled}
    one = {record["id"]: record for record in job_on(Faulty()).records(some)}
    assert found.pop("x") == {"id": "x", "error": "line 3: it is no row"}
    assert {n for n, record in found.items() if "error" in record} == {n for n in range(24) if n % 6 == 5}
    assert {n: record for n, record in found.items() if "error" not in record} == {
        n: record for n, record in one.items() if n % 6 != 5
    }
    assert texts == {n: one[n]["text"] for n in texts} and len(texts) == len(prepared)


def test_a_row_that_ends_its_actor_every_time_is_a_record_with_an_error_and_the_others_are_there(
    cluster: Cluster, tmp_path: Path
) -> None:
    some = [request for request in REQUESTS[:24] if request.id == 11 or not request.texts["prompt"].startswith("f")]
    wanted = {record["id"]: record for record in job_on(Faulty()).records(some)}
    told: list[str] = []
    with actors(cluster.address, partial(load_deadly, str(tmp_path)), 2, cpus=0.5, tell=told.append) as crew:
        found = list(records(crew, job_on(crew.model), some))
    (lost,) = (record for record in found if "error" in record)
    assert lost["id"] == 11 and "alone it ended its actor 3 times" in lost["error"]
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, {**wanted, 11: lost}.values()))
    # three times beside others, and three times alone
    assert len(list(tmp_path.iterdir())) == 6 and len(told) == 1


def test_a_model_that_ends_its_process_is_told_of(cluster: Cluster) -> None:
    with pytest.raises(CrewError, match="died while it opened"), actors(cluster.address, partial(load, "absent")):
        pass


def test_a_driver_that_is_killed_resumes_by_the_same_command(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": n, "prompt": f"{n} +"}) + "\n" for n in range(40)))
    line = ["run", "-t", "{prompt}{answer:2}", "-i", str(tmp_path / "in.jsonl"), "--backend", "reference"]
    line += ["-p", "med+temperature(1)", "--batch-size", "1"]
    out = tmp_path / "out.jsonl"
    by_ray = [*line, "-o", str(out), "--ray", cluster.address, "--actors", "2", "--actor-cpus", "0.5"]
    driver = subprocess.Popen([sys.executable, "-m", "mdsample_cli", *by_ray], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out.exists() and out.stat().st_size) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert out.stat().st_size, "the driver wrote nothing"
    assert main(by_ray) == 0 and "already answers" in capsys.readouterr().err
    assert main([*line, "-o", str(tmp_path / "one.jsonl")]) == 0
    assert sorted(out.read_text().splitlines()) == sorted((tmp_path / "one.jsonl").read_text().splitlines())


def by_ray(cluster: Cluster) -> list[str]:
    return ["--ray", cluster.address, "--actors", "2", "--actor-cpus", "0.5"]


def test_scores_are_those_of_one_process_to_the_byte(cluster: Cluster, tmp_path: Path) -> None:
    rows = [{"id": n, "prompt": f"{n} + {n % 3}", "texts": [str(n), str(n + 1)]} for n in range(8)]
    rows[5]["prompt"] = 5  # no text: an error of this row
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["score", "-t", "{prompt}{answer:3}", "-i", str(tmp_path / "in.jsonl"), "--backend", "reference"]
    line += ["--choices-from", "texts", "--method", "bound", "--samples", "4", "--batch-size", "1"]
    one, some = tmp_path / "one.jsonl", tmp_path / "some.jsonl"
    assert main([*line, "-o", str(one)]) == 1
    kept = one.read_bytes().splitlines(keepends=True)
    some.write_bytes(b"".join(kept[:3]))  # and it resumes what one process began
    assert main([*line, "-o", str(some), *by_ray(cluster)]) == 1
    assert sorted(some.read_bytes().splitlines(keepends=True)) == sorted(kept) and len(kept) == 8


def test_calibrations_and_studies_are_those_of_one_process(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = "{prompt}{reasoning:4}{answer:2}"
    line = ["calibrate", "med(?)", "--values", "2", "--limit", "6", "--error-bound", "50", "-t", layout]
    line += ["--backend", "reference", "--batch-size", "1", "--json", "-o"]
    code = main([*line, str(tmp_path / "one")])
    wanted = capsys.readouterr().out
    assert main([*line, str(tmp_path / "ray"), *by_ray(cluster)]) == code
    assert capsys.readouterr().out == wanted and wanted
    assert answered(tmp_path / "ray") == answered(tmp_path / "one")

    text = "limit = 4\nbatch_size = 1\npolicies = ['med(2)']\n[[tasks]]\nname = 'tiny-gsm'\n"
    model = "[[models]]\nname = 'tiny-gsm'\nbackend = 'reference'\nlabel = '{}'\n"
    study = read_study(
        f"{text}template = '{layout}'\n" + model.format("a") + model.format("b").replace("'tiny-gsm'", "'absent'")
    )
    with Answers(tmp_path / "one.study") as answers:
        here = [cell.record(study) for cell in cells(study, answers)]
    several = CrewOptions(ray=cluster.address, actors=2, actor_cpus=0.5)
    with Answers(tmp_path / "ray.study") as answers, several.joined():
        there = [cell.record(study) for cell in cells(study, answers, opened=several.opened)]
    assert answered(tmp_path / "ray.study") == answered(tmp_path / "one.study")
    assert untimed(there[0]) == untimed(here[0])
    assert [("error" in cell, cell["model"]) for cell in there] == [(False, "a"), (True, "b")]
    with Answers(tmp_path / "ray.study") as answers:  # all of it is there
        again = cells(attrs.evolve(study, models=study.models[:1]), answers, opened=several.opened)
        assert [cell.record(study) for cell in again] == there[:1]


def answered(path: Path) -> list[dict[str, Any]]:
    return sorted(
        (untimed(json.loads(line)) for line in path.read_text().splitlines()), key=lambda row: json.dumps(row)
    )


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


def test_what_does_not_fit_is_refused(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(CrewError, match="no actor fits: each takes 1 GPUs"),
        actors(cluster.address, partial(load, "cpu"), gpus=1),
    ):
        pass
    ray.shutdown()
    for address in ("127.0.0.1:1", "nowhere", ":x"):
        with pytest.raises(CrewError, match="no Ray cluster"), actors(address, partial(load, "cpu")):
            pass
    assert Actor(0.25, 1.0).fitting({"GPU": 2.0, "CPU": 6.0}) == 6 and Actor(0.25, 1.0).fitting({"CPU": 6.0}) == 0


def test_a_plan_says_how_many_actors_fit(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": n, "prompt": f"{n} +"}) + "\n" for n in range(40)))
    line = ["ray-plan", "-t", "{prompt}{answer:2}", "-i", str(tmp_path / "in.jsonl"), "--backend", "reference"]
    assert main([*line, "--ray", cluster.address, "--actor-cpus", "0.5", "--batch-size", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["rows"] == 40 and plan["actors"] == 4 and plan["probe_rows"] == 4
    assert plan["seconds"] == pytest.approx(plan["opening"] + 40 * plan["row"] / 4)
