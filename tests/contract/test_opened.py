"""A backend as a whole: opening checkpoints, types, refusals and the promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import random_weights, write_checkpoint
from hypothesis import given, settings
from queries import query

import mdsample
from backends import Backend
from mdsample import testing
from mdsample.errors import ModelError
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.guide import NoGuide

TEMPLATE = "Q {prompt} R{reasoning:6:blind} A{answer:3}"
POLICIES = testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(backend: Backend, folder: Path) -> Any:
    return backend.open(folder)


def test_is_a_denoiser(backend: Backend, folder: Path, model: Any) -> None:
    typed: Denoiser = model
    assert (typed.name, typed.backend, typed.vocab_size, typed.max_length) == ("tiny", backend.name, 320, 48)
    assert mdsample.load(folder, backend.name, device="cpu").backend == backend.name


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(POLICIES)
def test_the_promises_hold(model: Any, policy: Policy) -> None:
    texts = [{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}]
    canvas = mdsample.Template.parse(TEMPLATE).canvas(model.tokenizer, texts)
    result = testing.run(policy, model, canvas)
    testing.a_trace_replays(result, model)
    testing.rows_are_independent(policy, model, canvas)


@pytest.mark.parametrize("stored", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_stored_type_in_every_type(backend: Backend, tmp_path: Path, stored: str, dtype: str) -> None:
    opened = backend.open(write_checkpoint(tmp_path, dtype=stored, shards=3), dtype)
    assert opened.trunk.dtype == backend.module("device").DTYPES[dtype]
    assert opened.backend == (backend.name if dtype == "float32" else f"{backend.name} {dtype}")
    reference = mdsample.load(tmp_path, "reference")
    found, expected = (m.predict(query(NoGuide())).marginals for m in (opened, reference))
    seen = np.isfinite(expected.entropy)
    tolerance = {"float32": 1e-4, "float16": 0.1, "bfloat16": 0.8}[dtype]
    np.testing.assert_allclose(found.entropy[seen], expected.entropy[seen], atol=tolerance)


def test_unknown_dtypes(backend: Backend, folder: Path) -> None:
    with pytest.raises(ModelError, match="there is no dtype 'int8' here; there are: float32, bfloat16, float16"):
        backend.open(folder, "int8")


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, None, r"ff_norm.weight in model.safetensors .*NaN"),
        (np.inf, None, r"ff_norm.weight in model.safetensors .*infinite"),
        (1e6, "float16", r"ff_norm.weight in model.safetensors .*overflow in float16; take bfloat16"),
    ],
)
def test_weights_that_cannot_be(
    backend: Backend, tmp_path: Path, value: float, dtype: str | None, message: str
) -> None:
    tensors = random_weights()
    tensors["model.transformer.blocks.1.ff_norm.weight"][3] = value
    with pytest.raises(ModelError, match=message):
        backend.open(write_checkpoint(tmp_path, weights=tensors), dtype)


def test_memory_is_checked_before_anything_is_read(
    backend: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.module("weights"), "free_memory", lambda _: 1000)
    backend.forbid_reading(monkeypatch)
    with pytest.raises(ModelError, match=r"tiny has .* weights, which take .* but .* are available"):
        backend.open(folder)


def test_unknown_guides(model: Any) -> None:
    with pytest.raises(ValueError, match="the guide Greedy is not known here; known: none, cfg"):
        model.predict(query(mdsample.Greedy()))


def test_numbers_that_overflow_are_an_error_and_never_greedy(backend: Backend, tmp_path: Path) -> None:
    tensors = random_weights()
    for name in ("ln_f", "ff_out"):  # finite, but their product is not
        tensors[f"model.transformer.{name}.weight"][:] = 1e30
    opened = backend.open(write_checkpoint(tmp_path, weights=tensors))
    with pytest.raises(ModelError, match="row 0, position 2 no usable scores"):
        opened.predict(query(NoGuide()))
