"""The MLX backend: a model folder as a denoiser on Apple GPUs, or on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import final

import attrs
import mlx.core as mx
import numpy as np

from mdsample.backend.installed import Choice, Device
from mdsample.core.arrays import Ints
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache, check_compatible
from mdsample.models.card import read_card
from mdsample.models.checkpoint import open_checkpoint
from mdsample.models.denoiser import Query
from mdsample.models.families import read_config
from mdsample.models.tokenizer import FileTokenizer
from mdsample.policy.guide import Cfg, NoGuide
from mdsample_mlx.device import choose_device, choose_dtype, free_memory, is_gpu, refuse_uncompilable, wire
from mdsample_mlx.past import Past
from mdsample_mlx.prediction import MlxPrediction
from mdsample_mlx.trunk import MlxTrunk
from mdsample_mlx.weights import read_weights


@final
@attrs.frozen(eq=False)
class MlxDenoiser:
    """A model on MLX; see `mdsample.models.denoiser.Denoiser`."""

    name: str
    trunk: MlxTrunk
    tokenizer: Tokenizer
    #: text of the template that suits the model
    template: str
    #: where it computes; two models may do so on different ones
    device: mx.Device
    #: what is kept of a look for the next one, if anything; of the last look's rows only, so one job at a time
    cache: Cache | None = None
    #: keys and values with the fixed text, and with masks in its place
    _pasts: tuple[Past, Past] | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Raises `CacheError` if the cache does not suit the model."""
        made = None if self.cache is None else (self.trunk.past(self.cache), self.trunk.past(self.cache))
        object.__setattr__(self, "_pasts", made)

    @property
    def backend(self) -> str:
        """`mlx`, with the dtype if it is not float32: answers in another one must not pass for the same."""
        return "mlx" if self.trunk.dtype == mx.float32 else f"mlx {str(self.trunk.dtype).rpartition('.')[2]}"

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self.trunk.spec.vocab_size

    @property
    def max_length(self) -> int:
        """The longest row, tokens."""
        return self.trunk.spec.max_length

    def predict(self, query: Query) -> MlxPrediction:
        """One forward pass, two under guidance (the second with `query.fixed` masked); only rows with looked positions.

        Raises `ValueError` for a guide it does not know, and as `MlxTrunk.hidden` and `MlxPrediction` do.
        """
        with mx.stream(self.device):
            match query.guide:
                case NoGuide():
                    hidden, masked, scale = self._hidden(query, query.tokens, 0), None, 0.0
                case Cfg(scale=scale):
                    bare = np.where(query.fixed, np.int32(self.tokenizer.mask_id), query.tokens)
                    hidden, masked = self._hidden(query, query.tokens, 0), self._hidden(query, bare, 1)
                case _:
                    raise ValueError(f"the guide {type(query.guide).__name__} is not known here; known: none, cfg")

            def logits(places: mx.array) -> mx.array:
                found = self.trunk.logits(hidden[places])
                return found if masked is None else guided(found, self.trunk.logits(masked[places]), scale)

            return MlxPrediction(logits, self.trunk.width, query.wanted, query.restriction, self.device)

    def _hidden(self, query: Query, tokens: Ints, which: int) -> mx.array:
        past = None if self._pasts is None else self._pasts[which]
        return self.trunk.hidden(tokens, query.valid, query.wanted, past, query.rows)


def guided(conditional: mx.array, unconditional: mx.array, scale: float) -> mx.array:
    """u + (`scale` + 1)(c − u) of logits `[n, W]`, as `mdsample.backend.reference.prediction.guided`."""
    impossible = mx.isneginf(conditional) | mx.isneginf(unconditional)
    moved = unconditional + (scale + 1) * (conditional - unconditional)
    return mx.where(impossible, conditional, moved)


def open_model(
    folder: Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    cache: Cache | None = None,
    compile: bool = False,
) -> MlxDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    `device`: `gpu`, `cpu`, or `None` for the GPU where there is one. `dtype`: `float32`, `bfloat16`, `float16`, or
    `None`: float32 on a CPU, elsewhere as stored; quantised matrices stay packed. `cache`: `None`, or one that suits
    the model. `compile`: see `MlxTrunk`; on a CPU that takes a C++ compiler.
    """
    where = choose_device(device)
    if compile:
        refuse_uncompilable(where)
    spec = read_config(folder)
    check_compatible(cache, spec.block)
    card = read_card(folder)
    tokenizer = FileTokenizer.read(folder, spec)
    checkpoint = open_checkpoint(folder, spec)
    weights = read_weights(checkpoint, where, choose_dtype(dtype, where, checkpoint.pieces["embed"][0].dtype))
    wire(where)
    with mx.stream(where):
        trunk = MlxTrunk(spec, weights, compile)
    return MlxDenoiser(card.name, trunk, tokenizer, card.template, where, cache)


def devices() -> tuple[Device, ...]:
    """The devices that MLX has here, the default one first; see `mdsample.backend.installed`."""
    first = choose_device(None)
    return (_device(first), _device(mx.Device(mx.cpu))) if is_gpu(first) else (_device(first),)


def choose(stored: str, *, device: str | None = None, dtype: str | None = None) -> Choice:
    """Device and dtype as `open_model` takes them; see `mdsample.backend.installed`."""
    where = choose_device(device)
    return Choice(_device(where), choose_dtype(dtype, where, stored), packed=True)


def _device(device: mx.Device) -> Device:
    about = str(mx.device_info(device).get("device_name", "")) if is_gpu(device) else ""
    return Device("gpu" if is_gpu(device) else "cpu", free_memory(device), about)
