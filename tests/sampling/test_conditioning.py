"""Self-conditioning in the loop: rows are independent, blocks begin anew, runs can be resumed, logits are not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemma
import numpy as np
import pytest

from backends import BACKENDS, Backend
from mdsample.core.canvas import Canvas
from mdsample.core.template import Template
from mdsample.core.uniforms import Uniforms, row_key
from mdsample.errors import PolicyError
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.parsing import parse
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.state import State
from mdsample.sampling.trace import Trace

#: two blocks and a half, fixed text inside them
TEMPLATE = Template.parse("Q {prompt} R{reasoning:13:blind} A{answer:5}")
PROMPTS = ["", "the cat", "Ann has 12 coins", "x"]
POLICIES = [
    "eb(1.5)+credit+temperature(1)",
    "confidence+top(2)+below-confidence(0.3)+early-exit(2)+temperature(1.2)",
    "lookahead(2)+top(3)+cooling(0.7)+temperature(1)",
]


class Spy(Denoiser):
    """A model that takes down what it was asked, and what it kept."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.about)
        self.inner, self.asked = inner, list[Query]()

    def predict(self, query: Query) -> Prediction:
        self.asked.append(query)
        return self.inner.predict(query)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Denoiser:
    return backend.open(gemma.write(tmp_path_factory.mktemp("gemma") / "tiny", gemma.oracle(head=0.6)))


def canvas(model: Denoiser, prompts: list[str]) -> Any:
    names = [f"row {PROMPTS.index(prompt)}" for prompt in prompts]
    return TEMPLATE.canvas(model.tokenizer, [{"prompt": prompt} for prompt in prompts], names)


def essence(row: Any) -> object:
    return row.slots, row.nfe, row.steps, [(c.step, c.position, c.token) for c in row.commits]


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_are_independent_and_runs_can_be_resumed(model: Denoiser, policy: str) -> None:
    if model.backend == "mlx" and policy != POLICIES[1]:
        pytest.skip("what differs between policies is in the loop, not in the backend")
    sampler = Sampler(parse(policy), seed=3)
    whole = sampler.run(model, canvas(model, PROMPTS))
    rows = {row.id: essence(row) for row in whole.rows}
    backwards = sampler.run(model, canvas(model, PROMPTS[::-1]), batch_size=3)
    assert {row.id: essence(row) for row in backwards.rows} == rows
    prepared = [prepare(model, TEMPLATE, f"row {i}", {"prompt": text}) for i, text in enumerate(PROMPTS)]
    assert {row.id: essence(row) for row in fill(sampler, model, TEMPLATE.slots, prepared, batch_size=2)} == rows
    states = list(Trace.of(whole).states())
    for state in (states[2], states[len(states) // 2], states[-2]):
        while not state.done:
            state, _ = sampler.step(model, state, sampler.plan(model, state.canvas))
        assert {row.id: essence(row) for row in sampler.result(model, state).rows} == rows


def test_only_the_block_in_progress_is_replayed(model: Denoiser) -> None:
    sampler, spy = Sampler(parse("confidence+top(1)+temperature(1)"), seed=1), Spy(model)
    begun = canvas(model, PROMPTS[1:2])
    states = [State.begin(begun), *(state for state, _ in sampler.steps(model, begun))]
    # blocks of 8 hold 8, 6 (and " A"), and 4 blanks
    opened = begun.blank[0].nonzero()[0]
    within = np.bincount((opened - opened[0]) // gemma.BLOCK)
    firsts = np.cumsum([0, *within])
    for state in states[:-1]:
        spy.asked.clear()
        sampler.step(spy, state, sampler.plan(spy, begun))
        done = int(state.step[0])
        assert len(spy.asked) == 1 + done - max(first for first in firsts if first <= done)
        assert spy.asked[0].memory[0] is None and all(query.memory[0] is not None for query in spy.asked[1:])


def test_a_block_is_predicted_as_a_whole_and_begins_anew(model: Denoiser) -> None:
    spy = Spy(model)
    result = Sampler(parse("left-to-right+top(3)+early-exit(0.001)")).run(spy, canvas(model, PROMPTS[2:3]))
    opened = result.state.canvas.blank[0]
    number = (np.arange(len(opened)) - opened.argmax()) // gemma.BLOCK
    for before, query in zip([None, *spy.asked], spy.asked, strict=False):
        current = number[(query.tokens != query.tokens)[0] | query.wanted[0]][0]
        assert (query.wanted[0] >= (opened & (number == current))).all() and query.remember
        assert (before is None) == (query.memory[0] is None)


def test_trials_see_what_the_next_pass_would(model: Denoiser) -> None:
    spy = Spy(model)
    Sampler(parse("lookahead(2)")).run(spy, canvas(model, PROMPTS[:1]))
    trial, after = spy.asked[1], spy.asked[2]
    assert not trial.remember and len(trial.memory) == len(trial.tokens) == 2
    assert all(kept is after.memory[0] for kept in trial.memory)


def test_guesses_are_refused(model: Denoiser) -> None:
    with pytest.raises(PolicyError, match="self-conditioned"):
        Sampler(parse("med")).run(model, canvas(model, PROMPTS), speculate=2)


def test_no_tensor_of_all_logits_is_alive(model: Denoiser, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.name != "torch":
        pytest.skip("only torch tells what each operation makes")
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    # a chunk of 5 places instead of the 4 · 8 of the query; what lies in it is as long as 64 MiB of real logits
    width = model.trunk.width  # pyright: ignore
    for name in ("CHUNK_BYTES", "SOFT_BYTES", "CACHE_BYTES"):
        monkeypatch.setattr(backend.module("prediction"), name, 5 * 4 * width)
    largest: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            tensors = [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)]
            largest.extend(x.numel() for x in tensors if x.shape and x.shape[-1] >= gemma.V and x.ndim == 2)
            return out

    sampler = Sampler(parse("eb(1.5)+cooling(0.8)+temperature(1)"), seed=3)
    state = sampler.start(model, canvas(model, PROMPTS))
    plan = sampler.plan(model, state.canvas)
    for _ in range(2):
        with Sizes():
            state, _ = sampler.step(model, state, plan)
    # the embedding is as large as the model; of logits there is never more than the chunk
    made = {size for size in largest if size != model.trunk._embed.numel()}  # pyright: ignore
    assert made and max(made) <= 5 * width


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("settings", [(0.1, 0.8, 0.4, 9, 0.005, 1), (0.02, 0.6, 0.5, 20, 0.5, 0)])
def test_its_own_sampler_is_generate_of_transformers(
    tmp_path: Path, backend: Backend, settings: tuple[float, ...]
) -> None:
    bound, start, end, most, entropy, still = settings
    text = f"entropy+entropy-bound({bound})+temperature(1)+annealing({start},end={end},steps={most})"
    sampler = Sampler(parse(f"{text}+renoise({most})+converged({entropy},passes={still})"), seed=7)
    oracle = gemma.oracle(head=2.0)
    model = backend.open(gemma.write(tmp_path / "tiny", oracle))
    banned = np.arange(gemma.V) >= model.tokenizer.size
    banned[model.tokenizer.mask_id] = True
    mask, prompts, new = model.tokenizer.mask_id, [[5, 6, 7], [*range(20, 32)]], 2 * gemma.BLOCK
    rows = Canvas.of_rows(
        [[*prompt, *[mask] * new] for prompt in prompts],
        [[-1] * len(prompt) + [0] * new for prompt in prompts],
        ("text",),
        mask,
        [0, 1],
    )
    state = sampler.run(model, rows).state
    for row, prompt in enumerate(prompts):

        def draws(purpose: Any, step: int, row: int = row, width: int = len(prompt) + new) -> Any:
            return Uniforms([row_key(7, row)], np.array([step], np.int32), width).at(purpose)[0]

        tokens, passes = gemma.generate(oracle, prompt, 2, settings, draws, banned)
        assert state.tokens[row, len(prompt) : len(prompt) + new].tolist() == tokens
        assert state.nfe[row] == passes
