"""`compile`: shapes from a short list, the same results, few graphs; a setting that is never silently ignored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, write_checkpoint, write_family
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from mdsample_cli.main import main
from mdsample_torch import compiled, recorded
from mdsample_torch.backend import open_model
from mdsample_torch.compiled import Compiled
from mdsample_torch.denoiser import TorchDenoiser
from mdsample_torch.recorded import Recorder

import mdsample
from mdsample import testing
from mdsample.backend.places import bucketed, rounded
from mdsample.backend.setup import Setup
from mdsample.backend.views import views
from mdsample.errors import ModelError
from mdsample.models.cache import Cache, Dual, Exact, Prefix
from mdsample.models.families import read_config
from mdsample.policy.base import Policy
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare

TEMPLATE = mdsample.Template.parse("Q {prompt} R{reasoning:6:blind} A{answer:3}")
TEXTS = [{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("models")
    return {family: write_family(where / family, family) for family in FAMILIES}


class Graphs:
    """Stands for the compiler: what it is given is run as it is, and counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    made, own = Graphs(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: own(function, backend=made, **options))
    yield made
    torch.compiler.reset()


def caches(folder: Path) -> tuple[Cache | None, ...]:
    return (None, Exact()) if read_config(folder).block else (None, Prefix(), Dual(3))


def pair(folder: Path, cache: Cache | None) -> tuple[TorchDenoiser, TorchDenoiser]:
    return (
        open_model(folder, Setup(device="cpu", cache=cache)),
        open_model(folder, Setup(device="cpu", cache=cache, compile=True)),
    )


@given(st.integers(1, 100_000))
def test_sizes_are_few_and_near(count: int) -> None:
    size = rounded(count)
    assert count <= size and 2 * size <= 3 * count and rounded(size) == size
    assert len({rounded(n) for n in range(1, 4097)}) == 24


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"dream_reasoner"}))  # the trunk of sdar once more
def test_the_tokens_are_those_without_it(family: str, folders: dict[str, Path], graphs: Graphs) -> None:
    for cache in caches(folders[family]):
        plain, static = pair(folders[family], cache)
        canvas = TEMPLATE.canvas(plain.tokenizer, TEXTS)
        for policy in ("med", "random+top(2)+temperature(1)+cfg(1)", "med+blocks(32)+early-exit"):
            results = [mdsample.Sampler(mdsample.parse(policy), seed=1).run(model, canvas) for model in (plain, static)]
            for row in range(len(TEXTS)):
                testing.same_row(results[0], row, results[1], row)
    # every layer but the last is compiled, unless it has experts: then it runs as it is
    assert (graphs.count == 0) == (family in ("sdar_moe", "rnd1"))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(policy=testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the")))
def test_any_policy(policy: Policy, folders: dict[str, Path]) -> None:
    # as it is, but for the shapes: what a compiler makes of them is tested above
    plain, static = pair(folders["llada"], None)
    static.trunk._compiled = lambda key: static.trunk._layer  # pyright: ignore[reportAttributeAccessIssue]
    canvas = TEMPLATE.canvas(plain.tokenizer, TEXTS)
    results = [testing.run(policy, model, canvas) for model in (plain, static)]
    for row in range(len(TEXTS)):
        testing.same_row(results[0], row, results[1], row)
    testing.rows_are_independent(policy, static, canvas)


def play(work: Any) -> Any:
    """Stands for a CUDA graph: it reads where it read when it was recorded, and writes where it wrote."""
    results = tuple(x.clone() for x in work())

    def replay() -> None:
        for to, new in zip(results, work(), strict=True):
            to.copy_(new)

    return replay, results


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
def test_recordings_play_what_was_recorded(family: str, folders: dict[str, Path]) -> None:
    for cache in caches(folders[family]):
        plain, static = pair(folders[family], cache)
        static.trunk._compiled = lambda key, own=static.trunk: own._layer  # pyright: ignore
        counted: list[int] = []

        def record(work: Any, counted: list[int] = counted) -> Any:
            replay, results = play(work)
            return lambda: (counted.append(1), replay())[1], results

        static.trunk._recorder = Recorder(static.trunk._backbone, record)  # pyright: ignore
        canvas = TEMPLATE.canvas(plain.tokenizer, TEXTS)
        for policy in ("med", "random+top(2)+temperature(1)+cfg(1)", "med+blocks(32)+early-exit"):
            results = [mdsample.Sampler(mdsample.parse(policy), seed=1).run(model, canvas) for model in (plain, static)]
            for row in range(len(TEXTS)):
                testing.same_row(results[0], row, results[1], row)
        assert len(counted) > 3


def test_only_what_comes_twice_is_recorded(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "RECORDINGS", 2)
    trunk = open_model(folders["llada"], Setup(device="cpu", compile=True)).trunk
    recordings: list[Any] = []

    def record(work: Any) -> Any:
        recordings.append(work)
        return play(work)

    recorder = Recorder(trunk._backbone, record)  # pyright: ignore

    def at(length: int) -> Any:
        yes = np.ones((1, length), np.bool_)
        tokens = np.arange(length, dtype=np.int32)[None] + 3
        return trunk._moved(bucketed(trunk.spec, views(trunk.spec, tokens, yes, yes, None), yes))  # pyright: ignore

    trunk._compiled = None  # pyright: ignore
    for length, count in ((4, 0), (4, 1), (4, 1), (8, 1), (8, 2), (16, 2), (4, 2), (4, 3)):
        found = recorder(at(length), None)[0]
        assert torch.equal(found, trunk._backbone(at(length), None)[0]) and len(recordings) == count  # pyright: ignore


def test_recordings_of_stores_that_are_gone_go(folders: dict[str, Path]) -> None:
    trunk = open_model(folders["llada"], Setup(device="cpu", compile=True)).trunk
    recorder = Recorder(lambda at, stores: (at.tokens.clone(),), play)
    yes = np.ones((1, 4), np.bool_)
    seen = views(trunk.spec, np.full((1, 4), 3, np.int32), yes, yes, None)
    at = trunk._moved(bucketed(trunk.spec, seen, yes))  # pyright: ignore
    held = [[(torch.zeros(2), torch.zeros(2))] for _ in range(4)]
    for stores in (None, held[0], held[1], held[0], held[1], held[0], held[2], held[2], held[3], held[3], None):
        recorder(at, stores)
    kept = {id(made.stores) for made in recorder._made.values() if made is not None}
    assert kept == {id(held[3]), id(None)}


@pytest.mark.slow
def test_a_job_of_ragged_rows_needs_few_graphs(folders: dict[str, Path], graphs: Graphs) -> None:
    models = pair(folders["a2d-qwen3"], None)
    rows = [prepare(models[0], TEMPLATE, i, {"prompt": "Ann has 12 coins "[: i % 17]}) for i in range(60)]
    sampler = mdsample.Sampler(mdsample.parse("med+early-exit"))
    said = [{row.id: row.text for row in fill(sampler, model, TEMPLATE.slots, rows, batch_size=8)} for model in models]
    assert said[0] == said[1] and len(said[0]) == 60
    assert 0 < graphs.count <= 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_really_compiled(folders: dict[str, Path]) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch needs a C++ compiler for a CPU")
    plain, static = pair(folders["dream"], None)
    canvas = TEMPLATE.canvas(plain.tokenizer, TEXTS[:1])
    one, other = (mdsample.Sampler(mdsample.med()).run(model, canvas) for model in (plain, static))
    testing.same_row(one, 0, other, 0)


def test_shapes_beyond_the_limit_are_compiled_anew(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SHAPES", 2)
    made = Compiled(lambda x: x + 1)
    for size in (1, 2, 3, 1, 2, 3):
        assert np.array_equal(made(size)(torch.zeros(size)).numpy(), np.ones(size))
    assert graphs.count >= 3


def test_never_silently_ignored(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="the reference backend compiles nothing; leave compile out, or use the torch"):
        mdsample.load("tiny-gsm", "reference", compile=True)
    assert main(["run", "--compile", "--backend", "reference"]) == 2
    assert "error: the reference backend compiles nothing" in capsys.readouterr().err

    def old(function: Any, **options: Any) -> Any:
        raise TypeError("compile() got an unexpected keyword argument 'isolate_recompiles'")

    monkeypatch.setattr(torch, "compile", old)
    with pytest.raises(ModelError, match=r"compile needs torch 2\.13 or later; this is "):
        mdsample.load(write_checkpoint(tmp_path), "torch", device="cpu", compile=True)
