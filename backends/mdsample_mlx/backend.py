"""The MLX backend: a model folder as a denoiser on Apple GPUs, or on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import mlx.core as mx
import numpy as np

from mdsample.backend.kv_plan import PerThread
from mdsample.backend.refusals import refuse_compiling
from mdsample.backend.setup import DEFAULT, Choice, Device, Setup
from mdsample.core.arrays import Bools
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache
from mdsample.models.denoiser import About, Denoiser, Query, Tuning
from mdsample.models.describe import describe
from mdsample.policy.guide import Cfg
from mdsample_mlx.device import choose_device, choose_dtype, free_memory, is_gpu, refuse_uncompilable, wire
from mdsample_mlx.prediction import MlxPrediction
from mdsample_mlx.trunk import MlxTrunk
from mdsample_mlx.weights import read_weights


@final
class MlxDenoiser(Denoiser):
    """A model on MLX."""

    def __init__(
        self,
        name: str,
        trunk: MlxTrunk,
        tokenizer: Tokenizer,
        template: str,
        device: mx.Device,
        cache: Cache | None = None,
        policy: str = "",
    ) -> None:
        """`template`, `policy`: texts of those that suit the model; `device`: two models may compute on different ones.

        Raises `CacheError` if the cache does not suit the model.
        """
        self.trunk, self.device = trunk, device
        backend = "mlx" if trunk.dtype == mx.float32 else f"mlx {str(trunk.dtype).rpartition('.')[2]}"
        spec = trunk.spec
        facts = name, backend, tokenizer, spec.vocab_size, template, spec.max_length
        super().__init__(About(*facts, cache, spec.block, policy, spec.led, spec.noise, spec.conditioned))
        self._kept = PerThread(trunk.kv_cache, cache)

    def restart_peak_memory(self) -> None:
        """Of all that MLX holds."""
        mx.reset_peak_memory()

    @property
    def peak_memory(self) -> int | None:
        """What MLX had allocated at most."""
        return mx.get_peak_memory()

    def predict(self, query: Query) -> MlxPrediction:
        """One forward pass, two under guidance; only rows with wanted positions are run.

        Raises `ValueError` as `Query.passes`, `MlxTrunk.hidden` and `MlxPrediction` do.
        """
        passes = query.passes(self.tokenizer.mask_id)
        with mx.stream(self.device):
            hidden, *masked = (
                self.trunk.hidden(tokens, query.valid, query.wanted, kv_cache, query.rows, query.opened, query.memory)
                for tokens, kv_cache in zip(passes, self._kept.caches[: len(passes)], strict=True)
            )

            tune = None if query.tuning is None else tuner(query.tuning, query.wanted)

            def logits(places: mx.array) -> mx.array:
                conditional = self.trunk.logits(hidden[places])
                if tune is not None:
                    return tune(conditional, places)
                if not isinstance(query.guide, Cfg):
                    return conditional
                return guided(conditional, self.trunk.logits(masked[0][places]), query.guide.scale)

            soften = self.trunk.soft if query.remember and self.conditioned else None
            facts = logits, self.trunk.width, query.wanted, query.restriction, query.guide, self.device
            return MlxPrediction(*facts, soften=soften, credits=query.credits)


def tuner(tuning: Tuning, wanted: Bools) -> Callable[[mx.array, mx.array], mx.array]:
    """What a `Tuned` guide makes of logits `[n, W]` of places `[n]`: numbers of places where `wanted [B, L]`."""
    rows, positions = (index.astype(np.int32) for index in np.nonzero(wanted))
    which, token, divisor = tuning.at(rows, positions)
    amount, lowered = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int32)
    amount[which], lowered[which] = tuning.lowered, token
    tokens, amounts, divisors = mx.array(lowered), mx.array(amount), mx.array(divisor)

    def tune(logits: mx.array, places: mx.array) -> mx.array:
        there = mx.arange(logits.shape[1])[None] == tokens[places][:, None]
        return (logits - mx.where(there, amounts[places][:, None], 0)) / divisors[places][:, None]

    return tune


def guided(conditional: mx.array, unconditional: mx.array, scale: float) -> mx.array:
    """u + (`scale` + 1)(c − u) of logits `[n, W]`, as `mdsample.backend.reference.prediction.guided`."""
    impossible = mx.isneginf(conditional) | mx.isneginf(unconditional)
    moved = unconditional + (scale + 1) * (conditional - unconditional)
    return mx.where(impossible, conditional, moved)


def open_model(folder: Path, setup: Setup = DEFAULT) -> MlxDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    Without a device it takes the GPU where there is one; without a dtype float32 on a CPU, elsewhere as stored;
    quantised matrices stay packed. What `compile` does: see `MlxTrunk`; on a CPU that takes a C++ compiler.
    """
    where = choose_device(setup.device)
    model = describe(folder, setup.cache, setup.adapter)
    if setup.compile:
        refuse_compiling(model.trunk.family, model.trunk.gemma is not None, setup.compile)
        refuse_uncompilable(where)
    weights = read_weights(model.checkpoint, where, choose_dtype(setup.dtype, where, model.stored))
    wire(where)
    with mx.stream(where):
        trunk = MlxTrunk(model.trunk, weights, setup.compile)
    card, tokenizer = model.card, model.tokenizer
    return MlxDenoiser(card.name, trunk, tokenizer, card.template, where, setup.cache, model.policy)


def devices() -> tuple[Device, ...]:
    """The devices that MLX has here, the default one first; see `mdsample.backend.setup`."""
    first = choose_device(None)
    return (_device(first), _device(mx.Device(mx.cpu))) if is_gpu(first) else (_device(first),)


def choose(stored: str, setup: Setup) -> Choice:
    """Device and dtype as `open_model` takes them; see `mdsample.backend.setup`."""
    where = choose_device(setup.device)
    return Choice(_device(where), choose_dtype(setup.dtype, where, stored), packed=True)


def _device(device: mx.Device) -> Device:
    about = str(mx.device_info(device).get("device_name", "")) if is_gpu(device) else ""
    return Device("gpu" if is_gpu(device) else "cpu", free_memory(device), about)
