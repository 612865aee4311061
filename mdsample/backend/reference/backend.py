"""The reference backend: a model folder as a denoiser on NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np

from mdsample.backend.installed import Choice, Device
from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.core.tokens import Tokenizer
from mdsample.errors import ModelError
from mdsample.models.cache import Cache
from mdsample.models.checkpoint import available_memory
from mdsample.models.denoiser import About, Denoiser, Query
from mdsample.models.describe import describe


@final
class ReferenceDenoiser(Denoiser):
    """A model on NumPy in float32; it keeps nothing from pass to pass."""

    def __init__(self, name: str, trunk: NumpyTrunk, tokenizer: Tokenizer, template: str) -> None:
        """`template`: text of the template that suits the model."""
        self.trunk = trunk
        super().__init__(About(name, "reference", tokenizer, trunk.spec.vocab_size, template, trunk.spec.max_length))

    def predict(self, query: Query) -> NumpyPrediction:
        """One forward pass, two under guidance; only rows with wanted positions are run.

        Raises `ValueError` as `Query.passes`, `NumpyTrunk.logits` and `NumpyPrediction` do.
        """
        passes = query.passes(self.tokenizer.mask_id)
        logits = [self.trunk.logits(tokens, query.valid, query.wanted) for tokens in passes]
        return NumpyPrediction(guided(logits, query.guide), query.wanted, query.restriction)


def open_model(
    folder: Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    cache: Cache | None = None,
    compile: bool = False,
) -> ReferenceDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    There is one device, `cpu`, and one dtype, `float32`; there is no cache, and nothing is compiled.
    """
    _refuse(device, dtype)
    if cache is not None:
        raise ModelError(f"the reference backend has no caches, {str(cache)!r} neither; use the torch backend for it")
    if compile:
        raise ModelError("the reference backend compiles nothing; leave compile out, or use the torch backend for it")
    model = describe(folder)
    model.checkpoint.check_memory(np.dtype(np.float32).itemsize)
    trunk = NumpyTrunk(model.trunk, Tensors(model.checkpoint))
    return ReferenceDenoiser(model.card.name, trunk, model.tokenizer, model.card.template)


def devices() -> tuple[Device, ...]:
    """The one device there is; see `mdsample.backend.installed`."""
    return (Device("cpu", available_memory()),)


def choose(stored: str, *, device: str | None = None, dtype: str | None = None) -> Choice:
    """The one device and the one dtype there is; see `mdsample.backend.installed`."""
    _refuse(device, dtype)
    return Choice(devices()[0], "float32")


def _refuse(device: str | None, dtype: str | None) -> None:
    if device not in (None, "cpu"):
        raise ModelError(f"the reference backend runs on the cpu only, not on {device!r}; use the torch backend for it")
    if dtype not in (None, "float32"):
        raise ModelError(
            f"the reference backend computes in float32 only, not in {dtype!r}; use the torch backend for it"
        )
