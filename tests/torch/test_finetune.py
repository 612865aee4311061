"""Training: the trainable trunk is the trunk, the loss is LLaDA's, what comes out loads, and a kill costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, write_checkpoint, write_family
from hypothesis import given, settings
from hypothesis import strategies as st
from trunks import V, descriptions, weights

torch = pytest.importorskip("torch")
import interpreted  # noqa: F401 - what comes next imports Triton

pytest.importorskip("peft")
pytest.importorskip("accelerate")

from mdsample_cli.main import main
from mdsample_torch.trainable import TrainableTrunk
from mdsample_torch.training import trainer as training
from mdsample_torch.training.job import until
from mdsample_torch.training.objective import LEAST, corrupt
from mdsample_torch.training.settings import Settings
from mdsample_torch.training.trainer import finetune

import mdsample
from mdsample.backend.load import load
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.core.template import Template
from mdsample.errors import FinetuneError
from mdsample.jobs.examples import Example, read_examples
from mdsample.models.families.trunk import Trunk

EXAMPLES = [Example([0, 5 + i, 7, 8 + i, 1, 1], [-1, -1, 0, 0, 0, 1]) for i in range(12)]
QUICK = Settings(epochs=2, batch_size=3, learning_rate=1e-2, save_every=2, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "m")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(spec=descriptions(), seed=st.integers(0, 9), rows=st.integers(1, 3), length=st.integers(1, 10))
def test_the_trainable_trunk_is_the_trunk(spec: Trunk, seed: int, rows: int, length: int) -> None:
    arrays, rng = weights(spec, seed), np.random.default_rng(seed)
    valid = np.arange(length) < rng.integers(1, length + 1, rows)[:, None]
    tokens = np.where(valid, rng.integers(0, V, valid.shape), 0).astype(np.int32)
    wanted = valid & (rng.random(valid.shape) < 0.7)
    model = TrainableTrunk(spec)
    model.load({name: torch.from_numpy(array) for name, array in arrays.items()})
    assert {name: tuple(p.shape) for name, p in model.named.items()} == spec.shapes
    found = model(*(torch.from_numpy(a) for a in (tokens.astype(np.int64), valid, wanted)))
    expected = NumpyTrunk(spec, arrays).logits(tokens, valid, wanted)
    scale = 1e-5 * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=scale)
    if found.numel():
        found.sum().backward()
        # experts that nobody chose and a correction that only chooses have none
        assert all(p.grad is not None for name, p in model.named.items() if "expert" not in name and p.requires_grad)


@pytest.mark.parametrize("block", [None, 1, 3, 16])
def test_the_loss_is_an_unbiased_mean_over_the_slots(block: int | None) -> None:
    # E Σ hidden · weight · c = Σ c / positions whatever each position's cross-entropy c is, as long as it does not
    # depend on what else is hidden
    torch.manual_seed(0)
    slot = torch.full((6, 11), -1)
    slot[:, 2:9] = 0
    slot[1, 4] = -1
    slot[2, :] = -1
    slot[2, 10] = 0
    c = torch.rand(slot.shape) + 0.5
    total = torch.zeros(6)
    count = 4000
    for _ in range(count):
        hidden, weight = corrupt(slot, block)
        assert not (hidden & (slot < 0)).any()
        if block is not None:
            number = torch.where(hidden, torch.arange(11) // block, -1)
            assert all(len(set(row) - {-1}) <= 1 for row in number.tolist())
        total += (hidden * weight[:, None] * c).sum(1)
    expected = torch.stack([row[at >= 0].mean() for row, at in zip(c, slot, strict=True)])
    assert torch.allclose(total / count, expected, rtol=0.15)


def test_levels_are_stratified() -> None:
    slot = torch.zeros(8, 4, dtype=torch.int64)
    _, weight = corrupt(slot, None)
    level = (1 / (weight * 4)).sort().values
    assert ((level - LEAST) / (1 - LEAST) * 8).long().tolist() == list(range(8))


def run(folder: Path, out: Path, settings: Settings = QUICK, watch: Any = None, examples: Any = EXAMPLES) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries
        return finetune(folder, examples, out, settings, device="cpu", watch=watch)


def losses(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]


def test_activations_computed_twice_are_the_same(folder: Path, tmp_path: Path) -> None:
    import attrs

    run(folder, tmp_path / "kept")
    run(folder, tmp_path / "twice", attrs.evolve(QUICK, save_memory=True))
    assert losses(tmp_path / "kept") == losses(tmp_path / "twice")


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, 2])
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(folder: Path, tmp_path: Path, lora: int | None) -> None:
    import attrs

    chosen = attrs.evolve(QUICK, lora=lora)
    whole = run(folder, tmp_path / "whole", chosen)
    assert (whole.steps, whole.folder) == (8, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(step: int, steps: int, loss: float) -> None:
        assert steps == 8
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        run(folder, tmp_path / "cut", chosen, kill)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    seen = list[int]()
    run(folder, tmp_path / "cut", chosen, lambda step, *_: seen.append(step))
    assert seen == [5, 6, 7, 8]
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert first == second
    assert first != (folder / "model.safetensors").read_bytes()
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert not (tmp_path / "cut" / "checkpoints").exists()
    with pytest.raises(FinetuneError, match="is a finished training"):
        run(folder, tmp_path / "cut", chosen)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    # twelve equal rows, three in each process: two steps an epoch
    row = {"prompt": "a", "reasoning": "b c", "answer": "3"}
    (tmp_path / "rows.jsonl").write_text(12 * (json.dumps(row) + "\n"))
    command = ["finetune", "tiny-gsm", "--data", str(tmp_path / "rows.jsonl"), "--batch-size", "3", "--epochs", "2"]
    command += ["--learning-rate", "1e-3", "--device", "cpu", "--json", "--template", "{prompt}{reasoning:4}{answer:2}"]
    several = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--module", "mdsample_cli"]
    done = subprocess.run(
        [*several, *command, "--out", str(tmp_path / "two")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (told,) = done.stdout.splitlines()  # one of them speaks
    assert (json.loads(told)["steps"], len(losses(tmp_path / "two"))) == (4, 4)
    load(tmp_path / "two")
    # the mean over processes of a first loss that depends on the masks only, which differ
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    assert losses(tmp_path / "one")[0]["loss"] != pytest.approx(losses(tmp_path / "two")[0]["loss"], rel=1e-4)


@pytest.mark.slow
def test_it_learns_what_it_is_shown(folder: Path, tmp_path: Path) -> None:
    report = run(folder, tmp_path / "out", Settings(epochs=40, batch_size=12, learning_rate=3e-2), None, EXAMPLES[:2])
    assert report.last_loss < 0.2 * report.first_loss
    assert report.trained == report.parameters
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["last_loss"] == report.last_loss
    assert told["examples"] == 2
    assert {"mdsample", "numpy", "torch", "transformers"} <= told["versions"].keys()


@pytest.mark.slow
def test_every_step_of_a_reasoning_is_trained(folder: Path, tmp_path: Path) -> None:
    template = Template.parse("{prompt}\nStep 1:{step1:4}\nStep 2:{step2:4}\nAnswer:{answer:2}")
    tokenizer: Any = load(folder, "reference").tokenizer
    row = {"prompt": "the cat", "step1": "cat", "step2": "mat", "answer": "1"}
    [example] = read_examples(json.dumps(row).encode(), template, tokenizer).examples
    assert np.bincount(np.array(example.slot) + 1).tolist()[1:] == [4, 4, 2]
    run(folder, tmp_path / "out", Settings(epochs=150, batch_size=8, learning_rate=3e-2), None, [example] * 8)
    canvas = template.canvas(tokenizer, [{"prompt": "the cat"}])
    [found] = mdsample.Sampler(mdsample.parse("entropy+top(1)")).run(load(tmp_path / "out", "reference"), canvas).rows
    assert found.slots == {"step1": "cat", "step2": "mat", "answer": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "nemotron"])  # refused, see below
def test_every_family_in_its_own_layout(family: str, tmp_path: Path) -> None:
    source = write_family(tmp_path / "source", family)
    # too little is learned to be felt, so that a weight under another's name would be
    run(source, tmp_path / "out", Settings(epochs=2, batch_size=6, learning_rate=1e-6))
    before, after = (load(path, "torch").trunk for path in (source, tmp_path / "out"))
    assert before.spec == after.spec
    tokens, every = np.array([EXAMPLES[0].tokens], np.int32), np.ones((1, 6), bool)
    one, other = (model.hidden(tokens, every, every) for model in (before, after))
    assert not torch.equal(one, other)
    assert torch.allclose(one, other, atol=1e-3)


def test_wrong_inputs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="no examples"):
        run(folder, tmp_path / "a", examples=[])
    (tmp_path / "b").mkdir()
    with pytest.raises(FinetuneError, match="exists and is not a training"):
        run(folder, tmp_path / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(FinetuneError, match="cannot be written"):
        run(folder, tmp_path / "file" / "c")
    with pytest.raises(FinetuneError, match=r"nemotron_labs_diffusion.* is trained with a causal loss beside that of"):
        run(write_family(tmp_path / "led", "nemotron"), tmp_path / "d")
    from mdsample.models.convert import convert

    convert("tiny-gsm", tmp_path / "packed", bits=4)
    with pytest.raises(FinetuneError, match="is quantised, which cannot be trained"):
        run(tmp_path / "packed", tmp_path / "d")
    assert not (tmp_path / "d").exists()
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "job.json").write_text("{}")
    with pytest.raises(FinetuneError, match="holds another training"):
        run(folder, tmp_path / "e")
    for wrong in ({"lora": 0}, {"epochs": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"save_every": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)


def test_memory_is_checked_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match="memory"):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_objective_needs_nothing_but_torch() -> None:
    code = "import sys, mdsample_torch.training.objective; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"transformers", "accelerate", "peft"} & {name.split(".")[0] for name in loaded}


def test_a_log_goes_on_after_the_last_checkpoint() -> None:
    log = [b'{"step": 1, "loss": 2.0}\n', b'{"step": 2, "loss": 1.0}\n', b'{"step": 3, "lo']
    for step in range(3):
        assert list(until(step, log)) == log[:step]
    assert not list(until(0, []))
