"""The Torch backend: a model folder as a denoiser on Torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, final

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.arrays import Bools, Ints
from mdsample.cache import Cache, Rows, suit
from mdsample.checkpoint import open_checkpoint
from mdsample.denoiser import Ask, Tokenizer
from mdsample.families import family_of, read_config, read_fields
from mdsample.guide import Cfg, NoGuide
from mdsample.installed import Choice, Device
from mdsample.loading import read_card
from mdsample.refusals import Limits
from mdsample.tokenizer import FileTokenizer
from mdsample_torch.device import choose_device, choose_dtype, free_memory
from mdsample_torch.look import TorchLook
from mdsample_torch.past import Past
from mdsample_torch.trunk import TorchTrunk
from mdsample_torch.weights import read_weights

#: with and without the fixed text go through the trunk together up to this many tokens; its matrices are then busy
#: anyway, and one pass of more would only take more memory
STACKED_TOKENS = 16384


class Body(Protocol):
    """What computes: a `TorchTrunk`, or somebody's `nn.Module` behind a `ModuleBody`."""

    @property
    def spec(self) -> Limits:
        """What it can be asked."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        ...

    @property
    def width(self) -> int:
        """Columns of `logits`: the vocabulary, padded to a multiple of `weights.BLOCK`."""
        ...

    def past(self, cache: Cache) -> Past:
        """Room for what is kept from look to look; `CacheError` if it does not keep this, or nothing."""
        ...

    def hidden(self, tokens: Ints, valid: Bools, wanted: Bools, past: Past | None, rows: Rows | None) -> Tensor:
        """States `[N, d]` on the device, of the N places where `wanted [B, L]`, row by row; see `TorchTrunk.hidden`."""
        ...

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Writes the logits of `hidden [n, d]` to `out [n, width]`, float32; columns beyond the vocabulary are free."""
        ...


@final
@attrs.frozen(eq=False)
class TorchDenoiser:
    """A model on Torch; see `mdsample.denoiser.Denoiser`."""

    name: str
    trunk: Body
    tokenizer: Tokenizer
    #: text of the template that suits the model
    template: str
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
        """`torch`, with the dtype if it is not float32: answers in another one must not pass for the same."""
        return "torch" if self.trunk.dtype == torch.float32 else f"torch {str(self.trunk.dtype).removeprefix('torch.')}"

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self.trunk.spec.vocab_size

    @property
    def max_length(self) -> int:
        """The longest row, tokens."""
        return self.trunk.spec.max_length

    @torch.inference_mode()
    def look(self, ask: Ask) -> TorchLook:
        """One forward pass, two under guidance (the second with `ask.fixed` masked); only rows with looked positions.

        Raises `ValueError` for a guide it does not know, and as `hidden` of its trunk and `TorchLook` do.
        """
        match ask.guide:
            case NoGuide():
                past = None if self._pasts is None else self._pasts[0]
                hidden, masked, scale = self._hidden(ask, ask.tokens, past), None, 0.0
            case Cfg(scale=scale):
                hidden, masked = self._both(ask)
            case _:
                raise ValueError(f"the guide {type(ask.guide).__name__} is not known here; known: none, cfg")

        def logits(places: Tensor, out: Tensor) -> None:
            self.trunk.logits(hidden[places], out)
            if masked is not None:
                unconditional = torch.empty_like(out)
                self.trunk.logits(masked[places], unconditional)
                guide_(out, unconditional, scale)

        return TorchLook(logits, self.vocab_size, self.trunk.width, ask.looked, ask.restriction, self.trunk.device)

    def _both(self, ask: Ask) -> tuple[Tensor, Tensor]:
        """Hidden states `[N, d]` with the fixed text, and with masks in its place."""
        bare = np.where(ask.fixed, np.int32(self.tokenizer.mask_id), ask.tokens)
        if self._pasts is not None:
            return self._hidden(ask, ask.tokens, self._pasts[0]), self._hidden(ask, bare, self._pasts[1])
        if 2 * ask.tokens.size > STACKED_TOKENS:
            return self._hidden(ask, ask.tokens, None), self._hidden(ask, bare, None)
        valid, looked = np.concatenate([ask.valid] * 2), np.concatenate([ask.looked] * 2)
        hidden, masked = self.trunk.hidden(np.concatenate([ask.tokens, bare]), valid, looked, None, None).chunk(2)
        return hidden, masked

    def _hidden(self, ask: Ask, tokens: Ints, past: Past | None) -> Tensor:
        return self.trunk.hidden(tokens, ask.valid, ask.looked, past, ask.rows)


def guide_(conditional: Tensor, unconditional: Tensor, scale: float) -> None:
    """Writes u + (`scale` + 1)(c − u) into c `[n, W]`, as `mdsample.reference.look.guided`; u is used up."""
    impossible = conditional.isneginf() | unconditional.isneginf()
    conditional.copy_(
        torch.where(impossible, conditional, (conditional - unconditional).mul_(scale + 1).add_(unconditional))
    )


def open_model(
    folder: Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    cache: Cache | None = None,
    compile: bool = False,
) -> TorchDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    A `model_type` that is none of `mdsample.families` is left to transformers, see `mdsample_torch.masked_lm`.

    `device`: `cpu`, `cuda`, `cuda:1`, `mps`, or `None` for the best there is. `dtype`: `float32`, `bfloat16`,
    `float16`, or `None`: float32 on a CPU, elsewhere as stored. `cache`: `None`, or one that suits the model.
    `compile`: see `mdsample_torch.compiled`.
    """
    where = choose_device(device)
    if family_of(read_fields(folder)) is None:
        # imported here: it builds on this file
        from mdsample_torch.masked_lm import open_masked_lm

        return open_masked_lm(folder, where, dtype, cache, compile)
    spec = read_config(folder)
    suit(cache, spec.block)
    card = read_card(folder)
    tokenizer = FileTokenizer.read(folder, spec)
    checkpoint = open_checkpoint(folder, spec)
    weights = read_weights(checkpoint, where, choose_dtype(dtype, where, checkpoint.pieces["embed"][0].dtype))
    return TorchDenoiser(card.name, TorchTrunk(spec, weights, compile), tokenizer, card.template, cache)


def devices() -> tuple[Device, ...]:
    """The devices that torch has here, the default one first; see `mdsample.installed`."""
    found = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    found += [torch.device("mps")] * torch.backends.mps.is_available()
    found.append(torch.device("cpu"))
    first = choose_device(None)
    return tuple(_device(device) for device in sorted(found, key=lambda device: device != first))


def choose(stored: str, *, device: str | None = None, dtype: str | None = None) -> Choice:
    """Device and dtype as `open_model` takes them; see `mdsample.installed`."""
    where = choose_device(device)
    return Choice(_device(where), str(choose_dtype(dtype, where, stored)).removeprefix("torch."))


def _device(device: torch.device) -> Device:
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return Device(str(device), free_memory(device), about)
