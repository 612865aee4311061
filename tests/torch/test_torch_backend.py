"""The Torch backend as a whole: opening checkpoints, refusals, the promises, and the reference's own tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import random_weights, write_checkpoint
from hypothesis import given, settings
from queries import query

torch = pytest.importorskip("torch")

from mdsample_torch import backend, device, weights
from mdsample_torch.backend import open_model
from mdsample_torch.denoiser import TorchDenoiser

import mdsample
from mdsample import testing
from mdsample.errors import ModelError
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import Cfg, NoGuide

TEMPLATE = "Q {prompt} R{reasoning:6} A{answer:3}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> TorchDenoiser:
    return open_model(folder, device="cpu")


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
    assert np.array_equal(model.predict(query(guide)).draw(*at, None)[0], expected.draw(*at, None)[0])
    monkeypatch.setattr(backend, "STACKED_TOKENS", 0)
    near(model.predict(query(guide)).marginals, expected.marginals)


def test_guidance_is_one_pass_of_twice_the_rows(model: TorchDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    own = backend.TorchTrunk.hidden

    def hidden(self: Any, tokens: Any, *rest: Any) -> Any:
        shapes.append(tokens.shape)
        return own(self, tokens, *rest)

    monkeypatch.setattr(backend.TorchTrunk, "hidden", hidden)
    model.predict(query(Cfg(1.0)))
    monkeypatch.setattr(backend, "STACKED_TOKENS", 35)
    model.predict(query(Cfg(1.0)))
    assert shapes == [(6, 6), (3, 6), (3, 6)]


def test_is_a_denoiser(folder: Path, model: TorchDenoiser) -> None:
    typed: Denoiser = model
    assert (typed.name, typed.backend, typed.vocab_size, typed.max_length) == ("tiny", "torch", 320, 48)
    assert mdsample.load(folder, "torch", device="cpu").backend == "torch"


POLICIES = testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the"))


@settings(max_examples=15, deadline=None)
@given(POLICIES)
def test_the_promises_hold(model: TorchDenoiser, policy: Policy) -> None:
    texts = [{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}]
    canvas = mdsample.Template.parse(TEMPLATE).canvas(model.tokenizer, texts)
    result = testing.run(policy, model, canvas)
    testing.a_trace_replays(result, model)
    testing.rows_are_independent(policy, model, canvas)


@pytest.mark.parametrize("stored", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_stored_type_in_every_type(tmp_path: Path, stored: str, dtype: str) -> None:
    opened = open_model(write_checkpoint(tmp_path, dtype=stored, shards=3), device="cpu", dtype=dtype)
    assert opened.trunk.dtype == device.DTYPES[dtype]
    assert opened.backend == ("torch" if dtype == "float32" else f"torch {dtype}")
    reference = mdsample.load(tmp_path, "reference")
    found, expected = (m.predict(query(NoGuide())).marginals for m in (opened, reference))
    seen = np.isfinite(expected.entropy)
    tolerance = {"float32": 1e-4, "float16": 0.1, "bfloat16": 0.8}[dtype]
    np.testing.assert_allclose(found.entropy[seen], expected.entropy[seen], atol=tolerance)


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
        open_model(folder, device=name)


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
        open_model(folder, device="cpu", dtype="int8")


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, None, r"ff_norm.weight in model.safetensors .*NaN"),
        (np.inf, None, r"ff_norm.weight in model.safetensors .*infinite"),
        (1e6, "float16", r"ff_norm.weight in model.safetensors .*overflow in float16; take bfloat16"),
    ],
)
def test_weights_that_cannot_be(tmp_path: Path, value: float, dtype: str | None, message: str) -> None:
    tensors = random_weights()
    tensors["model.transformer.blocks.1.ff_norm.weight"][3] = value
    with pytest.raises(ModelError, match=message):
        open_model(write_checkpoint(tmp_path, weights=tensors), device="cpu", dtype=dtype)


def test_memory_is_checked_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(weights, "free_memory", lambda _: 1000)
    monkeypatch.setattr(weights, "safe_open", read)
    with pytest.raises(ModelError, match=r"tiny has .* weights, which take .* but .* are available"):
        open_model(folder, device="cpu")


def test_unknown_guides(model: TorchDenoiser) -> None:
    with pytest.raises(ValueError, match="the guide Greedy is not known here; known: none, cfg"):
        model.predict(query(mdsample.Greedy()))


def test_numbers_that_overflow_are_an_error_and_never_greedy(tmp_path: Path) -> None:
    tensors = random_weights()
    for name in ("ln_f", "ff_out"):  # finite, but their product is not
        tensors[f"model.transformer.{name}.weight"][:] = 1e30
    opened = open_model(write_checkpoint(tmp_path, weights=tensors), device="cpu")
    with pytest.raises(ModelError, match="row 0, position 2 no usable scores"):
        opened.predict(query(NoGuide()))
