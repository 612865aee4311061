"""A model on Torch."""

from __future__ import annotations

from typing import Protocol, final

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.backend.refusals import Limits
from mdsample.core.arrays import Bools, Ints
from mdsample.core.rows import Rows
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Cache
from mdsample.models.denoiser import Query
from mdsample.policy.guide import Cfg, NoGuide
from mdsample_torch.past import Past
from mdsample_torch.prediction import TorchPrediction

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
    """A model on Torch; see `mdsample.models.denoiser.Denoiser`."""

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
    def predict(self, query: Query) -> TorchPrediction:
        """One forward pass, two under guidance (the second with `query.fixed` masked); only rows with looked positions.

        Raises `ValueError` for a guide it does not know, and as `hidden` of its trunk and `TorchPrediction` do.
        """
        match query.guide:
            case NoGuide():
                past = None if self._pasts is None else self._pasts[0]
                hidden, masked, scale = self._hidden(query, query.tokens, past), None, 0.0
            case Cfg(scale=scale):
                hidden, masked = self._both(query)
            case _:
                raise ValueError(f"the guide {type(query.guide).__name__} is not known here; known: none, cfg")

        def logits(places: Tensor, out: Tensor) -> None:
            self.trunk.logits(hidden[places], out)
            if masked is not None:
                unconditional = torch.empty_like(out)
                self.trunk.logits(masked[places], unconditional)
                guide_(out, unconditional, scale)

        return TorchPrediction(
            logits, self.vocab_size, self.trunk.width, query.wanted, query.restriction, self.trunk.device
        )

    def _both(self, query: Query) -> tuple[Tensor, Tensor]:
        """Hidden states `[N, d]` with the fixed text, and with masks in its place."""
        bare = np.where(query.fixed, np.int32(self.tokenizer.mask_id), query.tokens)
        if self._pasts is not None:
            return self._hidden(query, query.tokens, self._pasts[0]), self._hidden(query, bare, self._pasts[1])
        if 2 * query.tokens.size > STACKED_TOKENS:
            return self._hidden(query, query.tokens, None), self._hidden(query, bare, None)
        valid, wanted = np.concatenate([query.valid] * 2), np.concatenate([query.wanted] * 2)
        hidden, masked = self.trunk.hidden(np.concatenate([query.tokens, bare]), valid, wanted, None, None).chunk(2)
        return hidden, masked

    def _hidden(self, query: Query, tokens: Ints, past: Past | None) -> Tensor:
        return self.trunk.hidden(tokens, query.valid, query.wanted, past, query.rows)


def guide_(conditional: Tensor, unconditional: Tensor, scale: float) -> None:
    """Writes u + (`scale` + 1)(c − u) into c `[n, W]`, as `guided` of the reference backend; u is used up."""
    impossible = conditional.isneginf() | unconditional.isneginf()
    conditional.copy_(
        torch.where(impossible, conditional, (conditional - unconditional).mul_(scale + 1).add_(unconditional))
    )
