"""A module of your own as a denoiser: it says tokens → logits, everything else is done here."""

from __future__ import annotations

from typing import final

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from mdsample.backend.refusals import Limits, refuse_ask
from mdsample.core.arrays import Bools, Ints
from mdsample.core.rows import Rows
from mdsample.core.tokens import Tokenizer
from mdsample.errors import CacheError, ModelError
from mdsample.models.cache import Cache
from mdsample.models.card import TEMPLATE
from mdsample.models.denoiser import Noise
from mdsample_torch.denoiser import TorchDenoiser
from mdsample_torch.device import upload
from mdsample_torch.kv_cache import KVCache
from mdsample_torch.weights import BLOCK

#: logits `[b, L, V]` of a module without a head are made for as many rows at a time as fit into this, as float32
LOGITS_BYTES = 256 << 20


@attrs.frozen
class Sizes:
    """What a module can be asked."""

    vocab_size: int
    max_length: int
    #: modules see the whole row
    block: int | None = None
    led: bool = False
    noise: Noise = "mask"
    conditioned: bool = False


@final
@attrs.frozen(eq=False)
class ModuleBody:
    """A module in the place of a trunk; see `mdsample_torch.denoiser.Backbone`."""

    module: nn.Module
    #: from states `[n, d]` to logits `[n, V]`; `None`: the module's states are the logits
    head: nn.Module | None
    spec: Limits

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return next(self.module.parameters(), torch.empty(0)).device

    @property
    def dtype(self) -> torch.dtype:
        """What the module's parameters are."""
        return next(self.module.parameters(), torch.empty(0)).dtype

    @property
    def width(self) -> int:
        """Columns of `logits`."""
        return -(-self.spec.vocab_size // BLOCK) * BLOCK

    def kv_cache(self, cache: Cache) -> KVCache:
        """A module keeps nothing: raises `CacheError`."""
        raise CacheError(
            f"the cache {str(cache)!r} is for the families of mdsample; this model runs through a module that keeps "
            "nothing from look to look, so leave the cache out"
        )

    def hidden(
        self,
        tokens: Ints,
        valid: Bools,
        wanted: Bools,
        cache: KVCache | None = None,
        rows: Rows | None = None,
        opened: Bools | None = None,
    ) -> Tensor:
        """States `[N, d]` of the N places where `wanted [B, L]`, row by row; other rows are not run.

        `cache`, `rows` and `opened` play no part: see `kv_cache`.
        Raises `ValueError` as `refuse_ask`, and `ModelError` if the module is in training mode or gives another shape.
        """
        refuse_ask(self.spec, tokens, valid, wanted)
        if self.module.training:
            raise ModelError(
                "the module is in training mode, where dropout changes what it says; call its eval() first"
            )
        asked = np.flatnonzero(wanted.any(1))
        if not len(asked):
            return torch.zeros((0, 0), device=self.device)
        row_bytes = 4 * tokens.shape[1] * self.spec.vocab_size
        size = max(1, LOGITS_BYTES // row_bytes) if self.head is None else len(asked)
        groups = np.split(asked, range(size, len(asked), size))
        return torch.cat([self._states(tokens[group], valid[group], wanted[group]) for group in groups])

    def _states(self, tokens: Ints, valid: Bools, wanted: Bools) -> Tensor:
        length = int(np.flatnonzero(valid.any(0))[-1]) + 1
        tokens, valid, wanted = tokens[:, :length], valid[:, :length], wanted[:, :length]
        # token 0 in padding: what stood there has no effect, even on a module that does not look at `valid`
        given = upload(np.where(valid, tokens, 0).astype(np.int64), self.device)
        outputs = self.module(given, upload(valid, self.device))
        last = self.spec.vocab_size if self.head is None else None
        _refuse_shape(outputs, (*tokens.shape, last), "module")
        return outputs[upload(wanted, self.device)]

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Writes the logits of `hidden [n, d]` to `out [n, width]`, float32; `ModelError` for another shape."""
        scores = hidden if self.head is None else self.head(hidden)
        _refuse_shape(scores, (len(hidden), self.spec.vocab_size), "head")
        out[:, : self.spec.vocab_size] = scores


def from_module(
    module: nn.Module,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    head: nn.Module | None = None,
    vocab_size: int | None = None,
    name: str = "module",
    template: str = TEMPLATE,
) -> TorchDenoiser:
    """A denoiser from a module: `module(tokens [B, L] int64, valid [B, L] bool)` gives logits `[B, L, V]`.

    Padding (where `valid` is false) is at the end of rows, and must not influence the rest. With a `head` (`[n, d]` to
    `[n, V]`) the module gives hidden states `[B, L, d]` instead, and logits are made only where they are wanted.
    `vocab_size`: V, by default `tokenizer.size`. `max_length`: the longest row, tokens. It runs where and in what type
    the module is, in evaluation mode: with another, and with another shape, a look raises `ModelError`.
    """
    sizes = Sizes(tokenizer.size if vocab_size is None else vocab_size, max_length)
    return TorchDenoiser(name, ModuleBody(module, head, sizes), tokenizer, template)


def _refuse_shape(output: object, wanted: tuple[int | None, ...], who: str) -> None:
    """`ModelError` if this is not a tensor of the wanted shape; `None` stands for any size."""
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    if len(shape) != len(wanted) or any(want not in (None, size) for size, want in zip(shape, wanted, strict=True)):
        expected = ", ".join("d" if size is None else str(size) for size in wanted)
        what = list(shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(f"the {who} must give a tensor [{expected}]; it gave {what}")
