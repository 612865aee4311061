"""What is the Torch backend's own: guidance as one pass of twice the rows, its devices, and the reference's looks."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from queries import query

torch = pytest.importorskip("torch")

from mdsample_torch import denoiser, device, trunk
from mdsample_torch.backend import open_model
from mdsample_torch.denoiser import TorchDenoiser

import mdsample
from mdsample.backend.setup import Setup
from mdsample.errors import ModelError
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import Cfg, NoGuide


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> TorchDenoiser:
    return open_model(folder, Setup(device="cpu"))


def near(one: Any, other: Any) -> None:
    assert np.array_equal(one.token, other.token)
    for name in ("log_probability", "second", "entropy"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)


@pytest.mark.parametrize("guide", [NoGuide(), Cfg(1.5), Cfg(0.0)])
def test_looks_as_the_reference(folder: Path, model: TorchDenoiser, guide: Any, monkeypatch: Any) -> None:
    expected = mdsample.load(folder, "reference").predict(query(guide))
    near(model.predict(query(guide)).marginals, expected.marginals)
    rows, positions = np.nonzero(query(guide).wanted)
    at = rows.astype(np.int32), positions.astype(np.int32), np.linspace(0.1, 0.9, len(rows)), Temperature(0.7)
    assert np.array_equal(model.predict(query(guide)).draw(*at)[0], expected.draw(*at)[0])
    monkeypatch.setattr(denoiser, "STACKED_TOKENS", 0)
    near(model.predict(query(guide)).marginals, expected.marginals)


def test_guidance_is_one_pass_of_twice_the_rows(model: TorchDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    own = trunk.TorchTrunk.hidden

    def hidden(self: Any, tokens: Any, *rest: Any) -> Any:
        shapes.append(tokens.shape)
        return own(self, tokens, *rest)

    monkeypatch.setattr(trunk.TorchTrunk, "hidden", hidden)
    model.predict(query(Cfg(1.0)))
    monkeypatch.setattr(denoiser, "STACKED_TOKENS", 35)
    model.predict(query(Cfg(1.0)))
    assert shapes == [(6, 6), (3, 6), (3, 6)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "there is no device 'tpu'; write cpu, cuda, cuda:1"),
        ("cuda", "device 'cuda' is not available to torch .* here; available: cpu$"),
        ("cuda:x", "there is no device 'cuda:x'"),
        ("mps", "device 'mps' is not available"),
    ],
)
def test_unknown_devices(folder: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=message):
        open_model(folder, Setup(device=name))


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert {str(device.choose_device(name)) for name in (None, "cuda", "cuda:1")} == {"cuda:1"}
    with pytest.raises(ModelError, match="there is no device 'cuda:2'; cuda devices here go from cuda:0 to cuda:1"):
        device.choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert str(device.choose_device(None)) == "mps"


def test_default_dtypes(folder: Path) -> None:
    assert device.choose_dtype(None, torch.device("cpu"), "BF16") == torch.float32
    assert device.choose_dtype(None, torch.device("cuda"), "BF16") == torch.bfloat16
    with pytest.raises(ModelError, match="there is no dtype 'int8' here; there are: float32, bfloat16, float16"):
        open_model(folder, Setup(device="cpu", dtype="int8"))


@pytest.mark.parametrize("cache", [None, "dual"])
def test_a_model_may_be_copied_and_sent_to_another_process(folder: Path, cache: str | None) -> None:
    model = mdsample.load(folder, "torch", device="cpu", cache=cache)
    canvas = mdsample.Template.parse("Q {prompt} A{answer:6}").canvas(model.tokenizer, [{"prompt": "the cat"}])
    expected = mdsample.Sampler("top(2)").run(model, canvas).rows[0].tokens
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(mdsample.Sampler("top(2)").run(other, canvas).rows[0].tokens, expected)
