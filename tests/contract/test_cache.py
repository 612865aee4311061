"""Caches: the rules of what is recomputed, and the trunks that follow them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint, write_family
from commands import is_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from installed import on
from mdsample_cli.main import main

import mdsample
from backends import fitting
from mdsample import testing
from mdsample.backend.kv_plan import CachePlanner
from mdsample.core.canvas import Canvas
from mdsample.core.rows import Rows
from mdsample.errors import CacheError
from mdsample.models.cache import Cache, Dual, Exact, Prefix, read_cache
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.testing.promises import speculation_changes_nothing

CACHES = [None, Exact(), Prefix(), Prefix(3), Dual(), Dual(1)]


@pytest.mark.parametrize("cache", CACHES)
def test_text_round_trip(cache: Cache | None) -> None:
    assert read_cache("none" if cache is None else str(cache)) == cache


@pytest.mark.parametrize("text", ["", "dul", "exact(2)", "none(1)", "dual(0)", "dual(-1)", "dual(1.5)", "prefix()"])
def test_what_is_no_cache(text: str) -> None:
    with pytest.raises(CacheError):
        read_cache(text)


@pytest.mark.parametrize(("cache", "block"), [(Exact(), None), (Dual(), 4), (Prefix(2), 4)])
def test_unsuited(cache: Cache, block: int | None) -> None:
    with pytest.raises(CacheError, match="block-causal"):
        CachePlanner(cache, block)


class Script:
    """One row of 12, of which 4 are fixed; what each look computes."""

    def __init__(self, cache: Cache, block: int | None = None) -> None:
        self.planner = CachePlanner(cache, block)
        self.tokens = np.array([[5] * 4 + [9] * 8], np.int32)
        self.step = 0

    def predict(self, *asked: int, width: int = 12, keep: bool = True) -> list[int]:
        where = np.zeros((1, width), np.bool_)
        where[0, list(asked)] = True
        tokens = np.pad(self.tokens, ((0, 0), (0, width - 12)))
        valid = (np.arange(width) < 12)[None]
        plan = self.planner.plan(Rows([(0, 1)], np.array([self.step], np.int32)), tokens, valid, where)
        if keep:
            self.planner.commit(plan)
        self.step += 1
        return np.flatnonzero(plan.active[0]).tolist()

    def write(self, *positions: int) -> None:
        self.tokens[0, list(positions)] = 7


EVERYTHING = list(range(12))


class TestDual:
    def test_keeps_all_but_the_block_and_what_was_written_elsewhere(self) -> None:
        row = Script(Dual())
        assert row.predict(4, 5, 6) == EVERYTHING
        row.write(5)
        assert row.predict(4, 6, width=15) == [4, 5, 6]  # another width of the batch changes nothing
        row.write(4, 9)
        assert row.predict(6) == [4, 5, 6, 9]
        assert row.predict(6) == [4, 5, 6]

    def test_begins_anew_when_the_window_moves(self) -> None:
        row = Script(Dual())
        row.predict(4, 5)
        row.write(4, 5)
        assert row.predict(6, 7) == EVERYTHING
        assert row.predict(7) == [6, 7]

    def test_begins_anew_after_so_many_looks(self) -> None:
        row = Script(Dual(3))
        assert [len(row.predict(4, 5)) for _ in range(7)] == [12, 2, 2, 12, 2, 2, 12]
        row = Script(Dual(1))
        assert [len(row.predict(4, 5)) for _ in range(3)] == [12, 12, 12]

    def test_begins_anew_in_the_midst_of_a_run(self) -> None:
        row = Script(Dual())
        row.predict(4, 5)
        row.step += 1  # a look in between was somebody else's
        assert row.predict(4, 5) == EVERYTHING
        assert row.predict(4, 5, keep=False) == [4, 5]
        row.planner.forget()
        assert row.predict(4, 5) == EVERYTHING


class TestPrefix:
    def test_keeps_what_stands_before(self) -> None:
        row = Script(Prefix())
        assert row.predict(5, 6) == EVERYTHING
        row.write(5)
        assert row.predict(6) == EVERYTHING[5:]
        assert row.predict(6) == EVERYTHING[5:]


class TestLed:
    """A row of 12 whose blocks are counted from position 4; what stands before a block was computed causally."""

    def row(self) -> Callable[..., list[int]]:
        planner, tokens = CachePlanner(Exact(), 3), np.array([[5] * 4 + [9] * 8], np.int32)

        def predict(start: int, *asked: int, write: tuple[int, ...] = ()) -> list[int]:
            tokens[0, list(write)] += 1
            place = np.arange(12)[None]
            where = np.isin(place, asked)
            plan = planner.plan(Rows([(0, 1)], np.zeros(1, np.int32)), tokens, place < start + 3, where, [start])
            planner.commit(plan)
            return np.flatnonzero(plan.active[0]).tolist()

        return predict

    def test_a_block_is_computed_as_a_whole_and_once_more_when_the_next_one_begins(self) -> None:
        predict = self.row()
        assert predict(4, 3, 5) == [0, 1, 2, 3, 4, 5, 6]
        assert predict(4, 5, 6) == [5, 6]
        assert predict(4, 6, write=(4, 5)) == [4, 5, 6]
        assert predict(7, 6, 8, write=(6,)) == [4, 5, 6, 7, 8, 9]
        assert predict(7, 8, write=(7,)) == [7, 8, 9]

    def test_what_stands_before_a_block_is_causal(self) -> None:
        predict = self.row()
        predict(7, 8)
        assert predict(7, 8, write=(5,)) == [5, 6, 7, 8, 9], "a change there changes nothing before it"

    def test_an_earlier_block_again(self) -> None:
        predict = self.row()
        predict(7, 8)
        assert predict(4, 5) == [4, 5, 6], "its places saw only what is before them"
        assert predict(7, 8) == [4, 5, 6, 7, 8, 9]


class TestExact:
    def test_computes_blocks_that_changed_up_to_the_last_one_asked(self) -> None:
        row = Script(Exact(), 3)
        assert row.predict(4, 5) == [0, 1, 2, 3, 4, 5]
        assert row.predict(4) == [4]
        row.write(4, 5)
        assert row.predict(6) == [3, 4, 5, 6, 7, 8]
        assert row.predict(9) == [9, 10, 11]
        row.write(7)
        assert row.predict(8) == [6, 7, 8]
        assert row.predict(9) == [9, 10, 11]  # it had seen what stood in the block before

    def test_needs_no_order_of_steps(self) -> None:
        row = Script(Exact(), 3)
        row.predict(4)
        row.step = 0
        assert row.predict(4) == [4]


def test_other_rows_are_forgotten_and_found() -> None:
    planner = CachePlanner(Dual(), None)
    tokens, yes = np.full((3, 4), 9, np.int32), np.ones((3, 4), np.bool_)
    asked = np.arange(4)[None] >= np.array([[1], [2], [3]])

    def predict(step: int, *keys: int) -> Any:
        rows = Rows([(0, key) for key in keys], np.full(len(keys), step, np.int32))
        plan = planner.plan(rows, tokens[list(keys)], yes[list(keys)], asked[list(keys)])
        planner.commit(plan)
        return plan.source.tolist(), plan.active.sum(1).tolist()

    assert predict(0, 0, 1, 2) == ([-1, -1, -1], [4, 4, 4])
    assert predict(1, 2, 0) == ([2, 0], [1, 3])
    assert predict(2, 0, 1) == ([1, -1], [3, 4])


backends = pytest.mark.parametrize("backend", [on("torch", "torch"), on("mlx", "mlx")])
TEMPLATE = mdsample.Template.parse("Q {prompt} R{reasoning:9:blind} A{answer:3}")
FAMILIES = ("dream", "sdar", "llada2_moe", "fast_dllm", "nemotron")
TEXTS = [{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}]
POLICIES = testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the"))
few = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Full attention, the same with shifted logits; block-causal, with experts, with shifted logits."""
    place = tmp_path_factory.mktemp("models")
    made = {family: write_family(place / family, family) for family in FAMILIES}
    return {"llada": write_checkpoint(place / "llada"), **made}


def opened(folder: Path, backend: str, cache: Cache | None = None) -> Any:
    return mdsample.load(folder, backend, device="cpu", dtype="float32", cache=cache)


def result(policy: Policy, model: Denoiser) -> mdsample.Result:
    return testing.run(policy, model, TEMPLATE.canvas(model.tokenizer, TEXTS))


@pytest.mark.slow
@backends
@few
@given(POLICIES, st.sampled_from(["sdar", "llada2_moe", "fast_dllm", "nemotron"]))
def test_exact_is_exact(folders: dict[str, Path], backend: str, policy: Policy, family: str) -> None:
    plain, cached = opened(folders[family], backend), opened(folders[family], backend, Exact())
    policy = fitting(policy, plain)
    expected, found = result(policy, plain), result(policy, cached)
    for row in range(len(TEXTS)):
        testing.same_row(expected, row, found, row)
    testing.a_trace_replays(found, cached)


@pytest.mark.slow
@backends
@settings(max_examples=8, deadline=None)
@given(POLICIES, st.sampled_from(["sdar", "llada2_moe", "fast_dllm"]), st.sampled_from([None, Exact()]))
def test_guesses_change_nothing(
    folders: dict[str, Path], backend: str, policy: Policy, family: str, cache: Cache | None
) -> None:
    model = opened(folders[family], backend, cache)
    canvas = TEMPLATE.canvas(model.tokenizer, TEXTS)
    speculation_changes_nothing(fitting(policy, model), model, canvas, 0, "3x2")


@backends
@pytest.mark.parametrize(
    "policy", ["left-to-right+top(1)", "confidence+top(3)+blocks(4)", "confidence+top(2)+blocks(8)"]
)
@pytest.mark.parametrize("family", ["fast_dllm", "nemotron"])
def test_the_first_place_of_a_block_is_read_in_the_block_before(
    folders: dict[str, Path], backend: str, policy: str, family: str
) -> None:
    plain, cached = (opened(folders[family], backend, cache) for cache in (None, Exact()))
    # nothing stands after the slot, which a block-causal model would not see
    canvas = mdsample.Template.parse("Q {prompt} A{answer:12}").canvas(plain.tokenizer, TEXTS)
    expected, found = (testing.run(mdsample.parse(policy), model, canvas) for model in (plain, cached))
    for row in range(len(TEXTS)):
        testing.same_row(expected, row, found, row)


@pytest.mark.slow
@backends
@few
@given(POLICIES, st.sampled_from(["llada", "dream"]), st.sampled_from([Dual(1), Prefix(1)]))
def test_anew_in_every_look_is_no_cache(
    folders: dict[str, Path], backend: str, policy: Policy, family: str, cache: Cache
) -> None:
    expected, found = (result(policy, opened(folders[family], backend, kept)) for kept in (None, cache))
    for row in range(len(TEXTS)):
        testing.same_row(expected, row, found, row)


@pytest.mark.slow
@backends
@few
@given(POLICIES, st.sampled_from(["llada", "dream"]), st.sampled_from([Dual(), Dual(2), Prefix(), Prefix(3)]))
def test_rows_are_independent_under_an_approximate_cache(
    folders: dict[str, Path], backend: str, policy: Policy, family: str, cache: Cache
) -> None:
    model = opened(folders[family], backend, cache)
    testing.rows_are_independent(policy, model, TEMPLATE.canvas(model.tokenizer, TEXTS))


@backends
@pytest.mark.parametrize(("family", "again"), [("llada", 4), ("dream", 5)])
def test_a_block_is_recomputed_as_a_whole(
    folders: dict[str, Path], backend: str, family: str, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last place too, of which a shifted model reads nothing; that reads the place before the block instead."""
    model = opened(folders[family], backend, Dual())
    kind, tokens = type(model.trunk), list[int]()
    own = kind._run

    def counting(self: Any, at: Any, stores: Any, *joined: Any) -> Any:
        tokens.append(len(at.tokens))
        return own(self, at, stores, *joined)

    monkeypatch.setattr(kind, "_run", counting)
    mask = model.tokenizer.mask_id
    canvas = Canvas.of_rows([[5] * 4 + [mask] * 8], [[-1] * 4 + [0] * 8], ("answer",), mask)
    mdsample.Sampler("left-to-right+top(1)+blocks(4)").run(model, canvas)
    assert tokens == [12, again, again, again] * 2


@backends
@pytest.mark.parametrize(
    ("family", "cache"),
    [("sdar", Exact()), ("nemotron", Exact()), ("llada", Dual()), ("llada", Prefix()), ("dream", Dual())],
)
def test_computes_less(
    folders: dict[str, Path], backend: str, family: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(folders[family], backend, cache)
    kind, tokens = type(model.trunk), list[int]()
    own = kind._run

    def counting(self: Any, at: Any, stores: Any, *joined: Any) -> Any:
        tokens.append(len(at.tokens))
        return own(self, at, stores, *joined)

    monkeypatch.setattr(kind, "_run", counting)
    policy = mdsample.parse("left-to-right+top(1)+blocks(4)")
    result(policy, opened(folders[family], backend))
    plain = sum(tokens)
    tokens.clear()
    result(policy, model)
    assert sum(tokens) < (0.75 if isinstance(cache, Prefix) else 0.5) * plain


@pytest.mark.slow
@backends
def test_an_approximate_cache_says_so_everywhere(
    folders: dict[str, Path], backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = opened(folders["llada"], backend, Dual(4))
    found = result(mdsample.parse("med"), model)
    assert found.approximate
    assert found.cache == "dual(4)"
    told = ["--model", str(folders["llada"]), "--backend", backend, "--device", "cpu", "--template", str(TEMPLATE)]
    assert main(["run", "the cat", *told, "--cache", "dual(4)"]) == 0
    assert "cache dual(4), approximate" in " ".join(capsys.readouterr().out.split())
    assert main(["run", "the cat", *told, "--cache", "dual(4)", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["cache"], record["approximate"]) == ("dual(4)", True)
    assert main(["run", "the cat", *told, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["cache"], record["approximate"]) == ("none", False)


@pytest.mark.parametrize(
    ("family", "backend", "cache", "said"),
    [
        ("llada", "torch", "exact", "needs block-causal attention"),
        ("sdar", "torch", "dual", "take exact"),
        ("llada", "torch", "duel", "there is no cache 'duel'"),
        ("llada", "mlx", "exact", "needs block-causal attention"),
        ("sdar", "mlx", "dual", "take exact"),
        ("llada", "reference", "dual", "the reference backend has no caches"),
    ],
)
def test_wrong_caches_are_one_line(
    folders: dict[str, Path], family: str, backend: str, cache: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if backend != "reference":
        pytest.importorskip(f"mdsample_{backend}.backend", reason=f"{backend} is not installed", exc_type=ImportError)
    is_refused(["run", "hi", "--model", str(folders[family]), "--backend", backend, "--cache", cache], said, capsys)


@pytest.mark.slow
@backends
def test_a_look_that_fails_leaves_nothing_half_written(folders: dict[str, Path], backend: str) -> None:
    model, plain = opened(folders["sdar"], backend, Exact()), opened(folders["sdar"], backend)
    canvas = TEMPLATE.canvas(model.tokenizer, TEXTS)
    sampler = mdsample.Sampler(mdsample.parse("entropy+top(1)"))
    state, _ = sampler.step(model, sampler.start(model, canvas))
    layer = (model.trunk._layers if backend == "torch" else model.trunk._matrices)[1]
    output = layer.pop("o")
    with pytest.raises(KeyError):
        sampler.step(model, state)
    layer["o"] = output
    while not state.done:
        state, _ = sampler.step(model, state)
    assert (state.tokens == sampler.run(plain, canvas).state.tokens).all()


@backends
def test_threads_on_one_model_do_not_read_what_another_keeps(folders: dict[str, Path], backend: str) -> None:
    model, policy = opened(folders["llada"], backend, Dual(3)), mdsample.parse("entropy+top(1)")
    prompts = ["the cat", "Ann has 12 coins", "", "Ben has 7"]

    def texts(prompt: str) -> list[list[int]]:
        canvas = TEMPLATE.canvas(model.tokenizer, [{"prompt": prompt}] * 2)
        return [row.tokens.tolist() for row in mdsample.Sampler(policy).run(model, canvas).rows]

    alone = [texts(prompt) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(texts, prompts)) == alone
