"""A kind of evidence and a part that reads it, made here, outside the package: loop, laws, resumed runs and engine."""

from __future__ import annotations

from typing import Any, ClassVar, final

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

import mdsample
from mdsample import exact, testing
from mdsample.core.arrays import Bools, Ints
from mdsample.evaluation.bench import bench
from mdsample.policy.settings import integer
from mdsample.policy.view import Batch, Evidence, Ranked, Seen, View
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared
from mdsample.tasks.catalog import Problem, Task
from mdsample.testing import ScriptedDenoiser, Symbols


@final
@attrs.frozen
class Settled(Evidence):
    """How many predictions in a row had the same argmax, this one included, `[B, L]` int64; all blanks are watched."""

    looks: int

    @property
    def depth(self) -> int:
        return self.looks

    def wanted(self, batch: Batch) -> Bools:
        return batch.blank

    def value(self, seen: Seen) -> NDArray[Any]:
        token = seen.view.marginals.token
        out = np.ones(token.shape, np.int64)
        for row, last in enumerate(seen.before):
            if last is not None:
                width = min(len(last[0]), token.shape[1])
                same = token[row, :width] == last[0][:width]
                out[row, :width] = np.minimum(np.where(same, last[1][:width] + 1, 1), self.looks)
        return out

    def remembered(self, seen: Seen, value: NDArray[Any]) -> list[Any]:
        return [(seen.view.marginals.token[row], value[row]) for row in range(len(value))]


@final
@attrs.frozen
class Converged(mdsample.Selection):
    """As many as head the ranking and whose argmax has been the same `looks` times."""

    name: ClassVar[str] = "come-to-rest"
    looks: int = integer(default=2, at_least=1)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        return (Settled(self.looks),)

    def count(self, view: View, ranked: Ranked) -> Ints:
        settled = np.take_along_axis(view.get(Settled(self.looks)), np.maximum(ranked.position, 0), axis=1)
        return ranked.leading(settled >= self.looks)


POLICY = mdsample.Whole() + mdsample.Confidence() + Converged(2) + mdsample.Temperature(1.0)
MODEL = ScriptedDenoiser(Symbols(6), 3, 2.0)
CANVAS = mdsample.Template.parse("{text:9}").canvas(MODEL.tokenizer, [{}] * 3)


def test_the_loop_keeps_its_promises() -> None:
    result = testing.run(POLICY, MODEL, CANVAS)
    testing.rows_are_independent(POLICY, MODEL, CANVAS)
    testing.a_trace_replays(result, MODEL)
    # the first step has nothing to compare with; after it some steps commit several
    sizes = [len([c for c in row.commits if c.step == step]) for row in result.rows for step in range(row.steps)]
    assert max(sizes) > 1 and all(len([c for c in row.commits if c.step == 0]) == 1 for row in result.rows)


def test_engine_and_resumed_runs_give_the_same() -> None:
    result = mdsample.Sampler(POLICY).run(MODEL, CANVAS)
    mask = MODEL.tokenizer.mask_id
    rows = [Prepared(i, [mask] * 9, [0] * 9, [True] * 9) for i in range(3)]
    found = {
        row.id: row.tokens.tolist() for row in fill(mdsample.Sampler(POLICY), MODEL, ("text",), rows, batch_size=2)
    }
    assert [found[i] for i in range(3)] == [row.tokens.tolist() for row in result.rows]
    for state in mdsample.Trace.of(result).states():
        while not state.done:  # without a plan nothing is remembered from step to step
            state, _ = mdsample.Sampler(POLICY).step(MODEL, state)
        assert (state.tokens == result.state.tokens).all()


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_its_exact_law_is_what_runs_show(looks: int) -> None:
    toy = exact.coupled(1.0, 2, length=3)
    policy = mdsample.Whole() + mdsample.Entropy() + Converged(looks) + mdsample.Temperature(1.0)
    law = exact.law(policy, toy)
    assert law.probability.sum() == pytest.approx(1)
    assert exact.kl(toy, law) <= law.kl_bound + 1e-9 and exact.tv(toy, law) <= law.tv_bound + 1e-9
    runs = 4000
    one = toy.canvas()
    many = mdsample.Canvas(
        *(np.repeat(array, runs, 0) for array in (one.tokens, one.blank, one.slot, one.valid)), one.names, range(runs)
    )
    result = mdsample.Sampler(policy).run(toy, many)
    assert result.state.nfe.mean() == pytest.approx(law.expected_nfe, abs=0.1)
    rows, counts = np.unique(result.state.tokens, axis=0, return_counts=True)
    shown = {tuple(row): n / runs for row, n in zip(rows.tolist(), counts.tolist(), strict=True)}
    assert sum(abs(p - shown.get(row, 0.0)) for row, p in law.outcomes.items()) / 2 < 0.05


def test_what_is_read_must_be_declared() -> None:
    @attrs.frozen
    class Silent(mdsample.Selection):
        name: ClassVar[str] = "silent"

        def count(self, view: View, ranked: Ranked) -> Ints:
            return view.get(Settled(2)).max(1).astype(np.int32)

    with pytest.raises(ValueError, match="without declaring it; add it to the part's `needs`"):
        mdsample.Sampler(Silent()).run(MODEL, CANVAS)


def test_it_is_read_from_text_and_benched() -> None:
    policy = mdsample.parse("whole+confidence+come-to-rest(2)+temperature", parts=[Converged])
    assert policy == POLICY and str(policy) == "whole+confidence+come-to-rest+temperature"
    task = Task(
        "letters", "", "{text:9}", lambda: (Problem(0, {}, "a"), Problem(1, {}, "b")), lambda row: row.text, needs=()
    )
    [score] = bench(MODEL, task, [policy])
    canvas = mdsample.Template.parse(task.template).canvas(MODEL.tokenizer, [{}] * 2)
    rows = mdsample.Sampler(policy).run(MODEL, canvas).rows
    assert score.nfe.value == np.mean([row.nfe for row in rows])
    full = "whole+confidence(noise=0,ends='free')+come-to-rest(looks=2)"
    assert score.policy == f"{full}+temperature(t=1,top_p=1,top_k=0,min_p=0)+never+none"
