"""The reference backend: a model folder as a denoiser on NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np

from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.backend.setup import DEFAULT, Choice, Device, Setup
from mdsample.core.tokens import Tokenizer
from mdsample.errors import ModelError
from mdsample.models.denoiser import About, Denoiser, Query
from mdsample.models.describe import describe
from mdsample.models.families.trunk import Trunk
from mdsample.models.weights.checkpoint import available_memory


@final
class ReferenceDenoiser(Denoiser):
    """A model on NumPy in float32; it keeps nothing from pass to pass."""

    def __init__(self, name: str, trunk: NumpyTrunk, tokenizer: Tokenizer, template: str, policy: str = "") -> None:
        """`template`, `policy`: texts of those that suit the model."""
        self.trunk = trunk
        spec = trunk.spec
        facts = name, "reference", tokenizer, spec.vocab_size, template, spec.max_length
        super().__init__(About(*facts, None, spec.block, policy, spec.led, spec.noise, spec.conditioned))

    def predict(self, query: Query) -> NumpyPrediction:
        """One forward pass, two under guidance; only rows with wanted positions are run.

        Raises `ValueError` as `Query.passes`, `NumpyTrunk.logits` and `NumpyPrediction` do.
        """
        passes = query.passes(self.tokenizer.mask_id)
        logits = [self.trunk.logits(tokens, query.valid, query.wanted, query.opened, query.memory) for tokens in passes]
        return NumpyPrediction(
            guided(logits, query.guide),
            query.wanted,
            query.restriction,
            query.guide,
            tuning=query.tuning,
            credits=query.credits,
            soften=self.trunk.soft if query.remember and self.conditioned else None,
        )


def open_model(folder: Path, setup: Setup = DEFAULT) -> ReferenceDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    There is one device, `cpu`, and one dtype, `float32`; there is no cache, and nothing is compiled.
    """
    _refuse(setup)
    if setup.cache is not None:
        raise ModelError(
            f"the reference backend has no caches, {str(setup.cache)!r} neither; use the torch backend for it"
        )
    if setup.compile:
        raise ModelError("the reference backend compiles nothing; leave compile out, or use the torch backend for it")
    model = describe(folder, adapter=setup.adapter)
    check_trunk(model.trunk)
    model.checkpoint.check_memory(np.dtype(np.float32).itemsize)
    trunk = NumpyTrunk(model.trunk, Tensors(model.checkpoint))
    return ReferenceDenoiser(model.card.name, trunk, model.tokenizer, model.card.template, model.policy)


def check_trunk(trunk: Trunk) -> None:
    """`ModelError` for a trunk that is not run here; see `mdsample.backend.setup`."""
    if trunk.gemma is not None:
        raise ModelError(f"the reference backend does not run {trunk.family}; use the torch or the mlx backend")


def devices() -> tuple[Device, ...]:
    """The one device there is; see `mdsample.backend.setup`."""
    return (Device("cpu", available_memory()),)


def choose(stored: str, setup: Setup) -> Choice:
    """The one device and the one dtype there is; see `mdsample.backend.setup`."""
    _refuse(setup)
    return Choice(devices()[0], "float32")


def _refuse(setup: Setup) -> None:
    for limit, wrong in (
        (f"runs on the cpu only, not on {setup.device!r}", setup.device not in (None, "cpu")),
        (f"computes in float32 only, not in {setup.dtype!r}", setup.dtype not in (None, "float32")),
    ):
        if wrong:
            raise ModelError(f"the reference backend {limit}; use the torch backend for it")
