"""Studies: what a file says, cells as `bench` scores them, resumed and failing, and the page that reports them."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import attrs
import numpy as np
import pytest
from checkpoints import write_checkpoint
from commands import is_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main

import mdsample
from mdsample.core.arrays import Bools
from mdsample.errors import BenchError
from mdsample.evaluation.bench import bench
from mdsample.evaluation.curves import WITHIN, at_passes, fewest
from mdsample.evaluation.intervals import clustered_difference, clustered_share, paired_difference, share
from mdsample.evaluation.study import Results, cells
from mdsample.evaluation.study_file import read_study
from mdsample.tasks.named import task_named

TEMPLATE = "Q {prompt} R{reasoning:5} A{answer:2}"
ODD = "<script>alert(1)</script> & $x^{ _"
STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_checkpoint(folder / "tiny", config={"max_sequence_length": 400})
    rows = [{"prompt": "the cat " * (i % 3), "answer": "aa"} for i in range(5)]
    (folder / "cats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def written(folder: Path, policies: str, more: str = "", model: str = "tiny") -> str:
    return (
        f"{more}\n[[tasks]]\nname = {str(folder / 'cats.jsonl')!r}\nlabel = 'cats'\ntemplate = '{TEMPLATE}'\n"
        f"[[models]]\nname = {str(folder / model)!r}\nbackend = 'reference'\nlabel = {ODD!r}\n[policies]\n{policies}\n"
    )


def test_cells_are_those_of_bench(folder: Path) -> None:
    text = written(folder, "many = ['top(2)', 'top(3)']\none = 'top(1)'", "baseline = 'one'\nseeds = [3]\nlimit = 4")
    study = read_study(text)
    found = list(cells(study))
    assert [(cell.rule, cell.text) for cell in found] == [("one", "top(1)"), ("many", "top(2)"), ("many", "top(3)")]
    task = task_named(str(folder / "cats.jsonl"), template=TEMPLATE)
    policies = [mdsample.parse(text) for text in ("top(1)", "top(2)", "top(3)")]
    scores = bench(mdsample.load(folder / "tiny", "reference"), task, policies, limit=4, seed=3)
    for cell, score in zip(found, scores, strict=True):
        assert (cell.accuracy, cell.nfe, cell.nfe_ratio) == (score.accuracy, score.nfe, score.nfe_ratio)
        assert cell.difference == (None if cell.text == "top(1)" else score.difference)
        record, scored = cell.record(study), score.record()
        same = record.keys() & scored.keys() - {"task", "model", "seconds"}
        assert {"policy", "accuracy", "nfe", "error_bound", "limit"} <= same
        assert {key: record[key] for key in same} == {key: scored[key] for key in same}


@pytest.mark.slow
def test_the_command_resumes_reports_and_says_what_failed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = f"base = 'top(2)'\n{json.dumps(ODD)} = ['top(3)', 'top(4)']\nbad = \"early-exit(slot='x')\""
    more = f"title = {ODD!r}\nseeds = [0, 1]\nat = [2.5]"
    absent = f"[[models]]\nname = {str(folder / 'absent')!r}\nlabel = 'absent'\n"
    text = written(folder, policies, more).replace("[policies]", f"{absent}[policies]")
    (tmp_path / "s.toml").write_text(text)
    line = ["study", str(tmp_path / "s.toml"), "-o", str(tmp_path / "out")]
    assert main(line) == 1
    told = capsys.readouterr()
    assert "cats" in told.out and "top(3)" in told.out and told.out.count("failed") == 5
    assert "no such slot" in told.err and "absent" in told.err and "Traceback" not in told.err
    kept = (tmp_path / "out" / "answers.jsonl").read_bytes()
    assert len(kept.splitlines()) == 2 * 5 * 3
    assert main([*line, "--json"]) == 1
    records = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == kept
    assert [("error" in record, record["model"] == "absent") for record in records] == [
        *[(False, False)] * 3,
        (True, False),
        *[(True, True)] * 4,
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    reads_as_text(page)
    # something else of that name stays as it is
    (tmp_path / "out" / "report.html").write_text("mine")
    is_refused(line, "is there and is not a report", capsys)


@pytest.mark.slow
def test_several_devices_give_the_answers_of_one_process_and_resume_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = "a = 'top(2)+temperature(1)'\nb = ['top(3)', 'top(4)']\nbad = \"early-exit(slot='x')\""
    text = written(folder, policies, "seeds = [0, 1]\nbatch_size = 1")
    (tmp_path / "s.toml").write_text(text)
    line = ["study", str(tmp_path / "s.toml"), "--json", "-o"]
    assert main([*line, str(tmp_path / "one")]) == 1
    one = capsys.readouterr()
    several = [*line, str(tmp_path / "two"), "--devices", "cpu,cpu"]
    assert main(several) == 1
    assert (scores(one.out), one.err.replace("one/", "two/")) == (scores((two := capsys.readouterr()).out), two.err)
    wanted = answered(tmp_path / "one" / "answers.jsonl")
    assert answered(tmp_path / "two" / "answers.jsonl") == wanted and len(wanted) == 3 * 2 * 5
    # cut off in the middle of a line, as by a kill
    kept = (tmp_path / "two" / "answers.jsonl").read_bytes()
    (tmp_path / "two" / "answers.jsonl").write_bytes(kept[: len(kept) // 2])
    assert main(several) == 1
    assert answered(tmp_path / "two" / "answers.jsonl") == wanted
    assert (tmp_path / "two" / "answers.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n", 0, len(kept) // 2)])
    is_refused([*line, str(tmp_path / "x"), "--devices", "cpu,"], "--devices takes names", capsys)
    is_refused([*line, str(tmp_path / "x"), "--actors", "2"], "add --ray ADDRESS", capsys)
    (tmp_path / "s.toml").write_text(text.replace("backend =", "device = 'cpu'\nbackend ="))
    is_refused(several, "has a device, and --devices are several", capsys)
    assert not (tmp_path / "x").exists()


def answered(path: Path) -> list[str]:
    """Lines of a file of answers, sorted, without times; versions are those of what a process has loaded."""
    rows = map(json.loads, path.read_text().splitlines())
    return sorted(json.dumps({**row, "seconds": 0.0, "versions": {}}) for row in rows)


def scores(out: str) -> list[dict[str, object]]:
    """Records of cells, without times."""
    return [{**json.loads(line), "seconds": 0.0, "versions": {}} for line in out.splitlines()]


def test_two_models_do_not_share_answers(folder: Path) -> None:
    text = written(folder, "a = 'top(4)'")
    model = text[text.index("[[models]]") : text.index("[policies]")]
    found = list(cells(read_study(text.replace(model, model + model.replace(repr(ODD), "'again'")))))
    assert [bool(cell.error) for cell in found] == [False, True] and "could not be told" in found[1].error
    # a task that is there twice, with other limits say, has its answers in common
    task = text[text.index("[[tasks]]") : text.index("[[models]]")]
    found = list(cells(read_study(text.replace(task, task + task.replace("'cats'", "'few'\nlimit = 2")))))
    assert [(cell.task, cell.error) for cell in found] == [("cats", ""), ("few", "")]


class Reader(HTMLParser):
    """Which elements a page has, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def reads_as_text(page: str) -> None:
    """What labels and policies hold is no markup; nothing is fetched; pictures have an alternative; ids differ."""
    reader = Reader()
    reader.feed(page)
    tags = {tag for tag, _ in reader.found}
    assert {"svg", "table", "h1", "pre"} <= tags and not tags & {"script", "img", "link", "iframe", "object"}
    for tag, about in reader.found:
        assert not any(name.startswith("on") for name in about), about
        assert all(value.startswith("#") for name, value in about.items() if name.endswith("href") and value)
        if tag == "svg":
            assert about["role"] == "img" and "top(" in (about["aria-label"] or "")
    assert "default-src 'none'" in page and "&lt;script&gt;alert(1)" in page
    assert not re.search(r"url\((?!#)", page) and "dark" in page and "#000000" not in page


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("limit = 4", "limit = 0"), "line 1, limit: this must be a whole number of at least 1; got 0"),
        (("limit = 4", "limit = 6"), "between 1 and 5, the problems of"),
        (("limit = 4", "limits = 4"), "line 1, limits: there is no such key; did you mean 'limit'?"),
        (("limit = 4", "limit = "), "this is not TOML: Invalid value (at line 1"),
        (("limit = 4", "seeds = []"), "line 1, seeds: this must be a list with something in it"),
        (("limit = 4", "seeds = [1, 1]"), "line 1, seeds: a seed is there twice"),
        (("limit = 4", "seeds = [true]"), "line 1, seeds[0]: this must be a whole number; got True"),
        (("limit = 4", "baseline = 'x'"), "line 1, baseline: this is one of a, b; got 'x'"),
        (("limit = 4", "baseline = 'b'"), "line 1, baseline: the baseline is one policy; 'b' has 2 settings"),
        (("limit = 4", "against = 'a'"), "line 1, against: this is one of b; got 'a'"),
        (("limit = 4", "at = [0]"), "line 1, at[0]: this must be a number above 0; got 0"),
        (("'top(1)'", "'topp(1)'"), "line 11, policies.a: unknown policy 'topp'"),
        (("'top(3)'", "'top(1)'"), "line 12, policies.b[1]: this policy is there already, under 'a'"),
        (("'top(3)'", "3"), "line 12, policies.b[1]: this must be a text; got 3"),
        (("backend = 'reference'", "dtype = 'int8'"), "line 8, models[0].dtype: this is one of float32, bfloat16"),
        (("backend = 'reference'", "chat = 1"), "line 8, models[0].chat: this must be true or false; got 1"),
        (("{answer:2}", "{answer:x}"), "line 2, tasks[0]: "),
        (("cats.jsonl", "dogs.jsonl"), "line 2, tasks[0]: cannot read"),
        (("label = 'cats'", "extract = 'first'"), "line 4, tasks[0].extract: "),
        (("label = 'cats'", "problems = 'x'"), "problems is the published file of gsm8k, math500, "),
        (("[policies]", "[polices]"), "line 10, polices: there is no such key; did you mean 'policies'?"),
        (("[[tasks]]", "[tasks]"), "line 2, tasks: this must be a list with something in it"),
    ],
)
def test_a_wrong_file_is_refused_before_a_model_is_opened(
    folder: Path, change: tuple[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = written(folder, "a = 'top(1)'\nb = ['top(2)', 'top(3)']", "limit = 4")
    read_study(text)
    assert change[0] in text
    monkeypatch.setattr("mdsample.evaluation.study_file.load", lambda *_, **__: pytest.fail("a model was opened"))
    with pytest.raises(BenchError) as fault:
        read_study(text.replace(*change))
    assert says in str(fault.value) and len(str(fault.value).split("\n")) <= 3


def test_what_a_study_needs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BenchError, match="no tasks"):
        read_study("")
    text = written(folder, "a = 'top(1)'")
    assert read_study(text, limit=2).tasks[0].limit == 2
    listed = read_study("policies = ['top(1)', 'med']\n" + text[: text.index("[policies]")])
    assert [(rule.name, rule.texts) for rule in listed.rules] == [("top(1)", ("top(1)",)), ("med", ("med",))]
    is_refused(["study", str(tmp_path / "none.toml")], "cannot read", capsys)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_studies_of_the_pages_can_be_read(path: Path) -> None:
    study = read_study(path.read_text(encoding="utf-8"))
    kept = Path(__file__).parents[2] / "docs" / "data" / f"study_{path.stem}.jsonl"
    if kept.exists():  # what the pages show is of these policies
        told = [json.loads(line)["text"] for line in kept.read_text(encoding="utf-8").splitlines()]
        assert sorted(told) == sorted(text for rule in study.rules for text in rule.texts)


@pytest.mark.parametrize(
    ("page", "studies"),
    [("README.md", ["readme-300"]), ("docs/cost-and-accuracy.md", ["readme", "readme-300", "readme-128", "noises"])],
)
def test_every_line_of_the_tables_is_of_a_study(page: str, studies: list[str]) -> None:
    text = (STUDIES.parents[1] / page).read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))
    read = [read_study((STUDIES / f"{name}.toml").read_text(encoding="utf-8")) for name in studies]
    asked = {text for study in read for rule in study.rules for text in rule.texts}
    assert told and told <= asked and (page == "README.md" or told == asked)
    assert all(f"{name}.toml" in (STUDIES.parents[1] / "docs" / "studies.md").read_text() for name in studies)


# intervals of several runs on the same problems

RUNS = st.integers(1, 12).flatmap(
    lambda n: st.integers(1, 4).flatmap(
        lambda m: st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=n, max_size=n)
    )
)


@given(RUNS)
def test_several_runs_tell_no_less_than_one_and_no_more_than_as_many_problems(rows: list[list[bool]]) -> None:
    solved: Bools = np.array(rows)
    found = clustered_share(solved)
    most = share(int(solved.sum()), solved.size)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low >= most.high - most.low - 1e-12
    repeated = clustered_share(np.repeat(solved[:, :1], 3, 1))  # runs that are all alike add nothing
    alone = share(int(solved[:, 0].sum()), len(solved))
    assert (repeated.low, repeated.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    one = clustered_share(solved[:, :1])
    assert (one.low, one.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    turned = solved[::-1]
    gap, other = clustered_difference(solved, turned), clustered_difference(turned, solved)
    assert gap.low <= gap.value <= gap.high and gap.value == pytest.approx(-other.value)
    if solved.shape[1] == 1:
        assert gap == paired_difference(solved[:, 0].tolist(), turned[:, 0].tolist())


def test_independent_runs_count_as_trials_of_their_own() -> None:
    rng = np.random.default_rng(0)
    covered = sum(
        found.low <= 0.3 <= found.high for found in (clustered_share(rng.random((60, 5)) < 0.3) for _ in range(400))
    )
    assert 0.92 <= covered / 400 <= 0.98
    # and where a problem decides alone, the problems do
    covered = sum(
        found.low <= 0.3 <= found.high
        for found in (clustered_share(np.repeat(rng.random((60, 1)) < 0.3, 5, 1)) for _ in range(400))
    )
    assert 0.92 <= covered / 400 <= 0.98


# rules along their settings


def made(nfe: list[int], solved: list[bool]) -> Results:
    """One run."""
    zeros = np.zeros((len(nfe), 1))
    return Results("", "", "", "", np.array(solved)[:, None], np.array(nfe, float)[:, None], *[zeros] * 4)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_line_is_read_between_its_settings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tried = [
        made(rng.integers(1, 40, 6).tolist(), (rng.random(6) < 0.6).tolist()) for _ in range(int(rng.integers(2, 5)))
    ]
    base = made([50] * 6, (rng.random(6) < 0.6).tolist())
    x, y = np.array(sorted((one.nfe.mean(), one.solved.mean()) for one in tried)).T
    at = float(rng.uniform(1, 40))
    [found] = at_passes({"rule": tried, "one": [base]}, [at], "rule")
    if x[0] <= at <= x[-1]:
        (accuracy,) = found.accuracy
        assert accuracy is not None and accuracy.value == pytest.approx(np.interp(at, x, y))
        assert 0 <= accuracy.low <= accuracy.high <= 1 and found.difference == (None,)
    else:
        assert found.accuracy == (None,)
    # the fewest passes: no point of a fine grid before it is good enough, and it is
    first, own = fewest({"rule": tried, "one": [base]}, base)
    assert own.passes.value == 50
    wanted = base.solved.mean() - WITHIN
    grid = np.linspace(x[0], x[-1], 2001)
    good = grid[np.interp(grid, x, y) >= wanted - 1e-12]
    if math.isfinite(first.passes.value):
        assert good.size and abs(first.passes.value - good[0]) <= 0.1 + (x[-1] - x[0]) / 2000
    else:
        assert not good.size
    assert attrs.astuple(first.passes)[1] <= attrs.astuple(first.passes)[2]
