"""The Torch backend: a model folder as a denoiser on Torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, final

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.arrays import Bools, Ints
from mdsample.checkpoint import open_checkpoint
from mdsample.denoiser import Ask, Tokenizer
from mdsample.families import family_of, read_config, read_fields
from mdsample.guide import Cfg, NoGuide
from mdsample.loading import read_card
from mdsample.refusals import Limits
from mdsample.tokenizer import FileTokenizer
from mdsample_torch.device import choose_device, choose_dtype
from mdsample_torch.look import TorchLook
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
    def width(self) -> int:
        """Columns of `logits`: the vocabulary, padded to a multiple of `weights.BLOCK`."""
        ...

    def hidden(self, tokens: Ints, valid: Bools, wanted: Bools) -> Tensor:
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

    @property
    def backend(self) -> str:
        """What it runs on."""
        return "torch"

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
                hidden, masked, scale = self.trunk.hidden(ask.tokens, ask.valid, ask.looked), None, 0.0
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
        if 2 * ask.tokens.size > STACKED_TOKENS:
            return (
                self.trunk.hidden(ask.tokens, ask.valid, ask.looked),
                self.trunk.hidden(bare, ask.valid, ask.looked),
            )
        valid, looked = np.concatenate([ask.valid] * 2), np.concatenate([ask.looked] * 2)
        hidden, masked = self.trunk.hidden(np.concatenate([ask.tokens, bare]), valid, looked).chunk(2)
        return hidden, masked


def guide_(conditional: Tensor, unconditional: Tensor, scale: float) -> None:
    """Writes u + (`scale` + 1)(c − u) into c `[n, W]`, as `mdsample.reference.look.guided`; u is used up."""
    impossible = conditional.isneginf() | unconditional.isneginf()
    conditional.copy_(
        torch.where(impossible, conditional, (conditional - unconditional).mul_(scale + 1).add_(unconditional))
    )


def open_model(folder: Path, *, device: str | None = None, dtype: str | None = None) -> TorchDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    A `model_type` that is none of `mdsample.families` is left to transformers, see `mdsample_torch.masked_lm`.

    `device`: `cpu`, `cuda`, `cuda:1`, `mps`, or `None` for the best there is. `dtype`: `float32`, `bfloat16`,
    `float16`, or `None`: float32 on a CPU, elsewhere as stored.
    """
    where = choose_device(device)
    if family_of(read_fields(folder)) is None:
        # imported here: it builds on this file
        from mdsample_torch.masked_lm import open_masked_lm

        return open_masked_lm(folder, where, dtype)
    spec = read_config(folder)
    card = read_card(folder)
    tokenizer = FileTokenizer.read(folder, spec)
    checkpoint = open_checkpoint(folder, spec)
    weights = read_weights(checkpoint, where, choose_dtype(dtype, where, checkpoint.pieces["embed"][0].dtype))
    return TorchDenoiser(card.name, TorchTrunk(spec, weights), tokenizer, card.template)
