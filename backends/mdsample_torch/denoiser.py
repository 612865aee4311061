"""A model on Torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from mdsample.backend.kv_plan import PerThread
from mdsample.backend.refusals import Limits
from mdsample.core.arrays import Bools, Ints
from mdsample.core.rows import Rows
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache
from mdsample.models.denoiser import About, Denoiser, Query, Tuning
from mdsample.policy.guide import Cfg
from mdsample_torch.device import upload
from mdsample_torch.kv_cache import KVCache
from mdsample_torch.prediction import TorchPrediction
from mdsample_torch.trunk import TorchTrunk

#: with and without the fixed text go through the trunk together up to this many tokens; its matrices are then busy
#: anyway, and one pass of more would only take more memory
STACKED_TOKENS = 16384


class Backbone(Protocol):
    """What computes: a `TorchTrunk`, or any `nn.Module` behind a `ModuleBody`."""

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

    def kv_cache(self, cache: Cache) -> KVCache:
        """Room for what is kept from pass to pass; `CacheError` if it does not keep this, or nothing."""
        ...

    def hidden(
        self,
        tokens: Ints,
        valid: Bools,
        wanted: Bools,
        cache: KVCache | None,
        rows: Rows | None,
        opened: Bools | None,
    ) -> Tensor:
        """States `[N, d]` on the device, of the N places where `wanted [B, L]`, row by row; see `TorchTrunk.hidden`."""
        ...

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Writes the logits of `hidden [n, d]` to `out [n, width]`, float32; columns beyond the vocabulary are free."""
        ...


@final
class TorchDenoiser(Denoiser):
    """A model on Torch."""

    def __init__(
        self,
        name: str,
        trunk: Backbone,
        tokenizer: Tokenizer,
        template: str,
        cache: Cache | None = None,
        policy: str = "",
    ) -> None:
        """`template`, `policy`: texts of those that suit the model. `CacheError` if the cache does not suit it."""
        self.trunk = trunk
        backend = "torch" if trunk.dtype == torch.float32 else f"torch {str(trunk.dtype).removeprefix('torch.')}"
        spec = trunk.spec
        facts = name, backend, tokenizer, spec.vocab_size, template, spec.max_length
        super().__init__(About(*facts, cache, spec.block, policy, spec.led, spec.noise, spec.conditioned))
        self._kept = PerThread(trunk.kv_cache, cache)

    def restart_peak_memory(self) -> None:
        """On CUDA; elsewhere nothing is counted."""
        if self.trunk.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.trunk.device)

    @property
    def peak_memory(self) -> int | None:
        """What torch had allocated on CUDA at most."""
        return torch.cuda.max_memory_allocated(self.trunk.device) if self.trunk.device.type == "cuda" else None

    @torch.inference_mode()
    def predict(self, query: Query) -> TorchPrediction:
        """One forward pass, two under guidance; only rows with wanted positions are run.

        Raises `ValueError` as `Query.passes`, `hidden` of its trunk and `TorchPrediction` do.
        """
        hidden, *masked = self._hidden(query)
        tune = None if query.tuning is None else Tune(query.tuning, query.wanted, self.trunk.device)

        def logits(places: Tensor, out: Tensor) -> None:
            self.trunk.logits(hidden[places], out)
            if isinstance(query.guide, Cfg):
                unconditional = torch.empty_like(out)
                self.trunk.logits(masked[0][places], unconditional)
                guide_(out, unconditional, query.guide.scale)
            if tune is not None:
                tune(places, out)

        trunk, size = self.trunk, self.vocab_size
        soften = trunk.soft if query.remember and self.conditioned and isinstance(trunk, TorchTrunk) else None
        facts = logits, size, trunk.width, query.wanted, query.restriction, query.guide, trunk.device
        return TorchPrediction(*facts, soften=soften, credits=query.credits)

    def _hidden(self, query: Query) -> Sequence[Tensor]:
        """Hidden states `[N, d]` of every pass."""
        passes = query.passes(self.tokenizer.mask_id)
        count = len(passes)
        if count == 1 or self.cache is not None or self.conditioned or count * query.tokens.size > STACKED_TOKENS:
            return [
                self._states(tokens, query, kv_cache)
                for tokens, kv_cache in zip(passes, self._kept.caches[:count], strict=True)
            ]
        valid, wanted, opened = (np.concatenate([array] * count) for array in (query.valid, query.wanted, query.opened))
        return self.trunk.hidden(np.concatenate(passes), valid, wanted, None, None, opened).chunk(count)

    def _states(self, tokens: Ints, query: Query, kv_cache: KVCache | None) -> Tensor:
        asked = tokens, query.valid, query.wanted, kv_cache, query.rows, query.opened
        trunk = self.trunk
        return trunk.hidden(*asked, query.memory) if isinstance(trunk, TorchTrunk) else trunk.hidden(*asked)


@final
class Tune:
    """What a `Tuned` guide does to logits, on the device."""

    def __init__(self, tuning: Tuning, wanted: Bools, device: torch.device) -> None:
        """Of the N places where `wanted [B, L]`, row by row."""
        rows, positions = (index.astype(np.int32) for index in np.nonzero(wanted))
        which, token, divisor = tuning.at(rows, positions)
        amount, lowered = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)
        amount[which], lowered[which] = -tuning.lowered, token
        self._token, self._amount, self._divisor = (upload(x, device) for x in (lowered, amount, divisor))

    def __call__(self, places: Tensor, out: Tensor) -> None:
        """Changes the logits `out [n, W]` of places `[n]` (their numbers)."""
        out.scatter_add_(1, self._token[places, None], self._amount[places, None])
        out /= self._divisor[places, None]


def guide_(conditional: Tensor, unconditional: Tensor, scale: float) -> None:
    """Writes u + (`scale` + 1)(c − u) into c `[n, W]`, as `guided` of the reference backend; u is used up."""
    impossible = conditional.isneginf() | unconditional.isneginf()
    conditional.copy_(
        torch.where(impossible, conditional, (conditional - unconditional).mul_(scale + 1).add_(unconditional))
    )
