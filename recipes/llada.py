"""The trunk that is trained: LLaDA's layout (RMSNorm, rotary half-split, SwiGLU, no biases, full attention)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Size:
    """The numbers of LLaDA's `config.json` that set the trunk's shape."""

    d_model: int = 192
    n_layers: int = 6
    n_heads: int = 6
    n_kv_heads: int = 6
    mlp_hidden_size: int = 512
    vocab_size: int = 448
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    #: width of the gated middle by which a self-conditioned trunk sees what it predicted the last time; 0: it does not
    conditioning_size: int = 0


class Conditioning(nn.Module):
    """What a self-conditioned trunk adds to its embeddings."""

    def __init__(self, size: Size) -> None:
        """Fresh weights; it starts by adding nothing."""
        super().__init__()
        d, f = size.d_model, size.conditioning_size
        self.norm = nn.RMSNorm(d, eps=size.rms_norm_eps)
        self.ff_proj, self.up_proj = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False)
        self.ff_out = nn.Linear(f, d, bias=False)

    def forward(self, signal: Tensor) -> Tensor:
        """`signal [B, L, d]`, soft embeddings of the last prediction, to what is added, `[B, L, d]`."""
        h = self.norm(signal)
        return self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


class Block(nn.Module):
    """One layer, with LLaDA's parameter names."""

    def __init__(self, size: Size) -> None:
        """Fresh weights."""
        super().__init__()
        d, f = size.d_model, size.mlp_hidden_size
        self.heads, self.kv_heads = size.n_heads, size.n_kv_heads
        kv = d // size.n_heads * size.n_kv_heads
        self.attn_norm = nn.RMSNorm(d, eps=size.rms_norm_eps)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d, n, bias=False) for n in (d, kv, kv))
        self.attn_out = nn.Linear(d, d, bias=False)
        self.ff_norm = nn.RMSNorm(d, eps=size.rms_norm_eps)
        self.ff_proj, self.up_proj = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False)
        self.ff_out = nn.Linear(f, d, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x [B, L, d]` to `[B, L, d]`."""
        b, n, d = x.shape
        h = self.attn_norm(x)
        q = rotate(self.q_proj(h).view(b, n, self.heads, -1).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(h).view(b, n, self.kv_heads, -1).transpose(1, 2), cos, sin)
        v = self.v_proj(h).view(b, n, self.kv_heads, -1).transpose(1, 2)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        # plain matmuls: at these sizes their backward pass is faster on CPU than scaled_dot_product_attention's
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.attn_out((weights @ v).transpose(1, 2).reshape(b, n, d))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half-split; `x [B, H, L, D]`."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Transformer(nn.Module):
    """What LLaDA's weight names call `model.transformer`."""

    def __init__(self, size: Size) -> None:
        """Fresh weights; attention starts by adding nothing."""
        super().__init__()
        self.size = size
        self.wte = nn.Embedding(size.vocab_size, size.d_model)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.n_layers))
        self.ln_f = nn.RMSNorm(size.d_model, eps=size.rms_norm_eps)
        self.ff_out = nn.Linear(size.d_model, size.vocab_size, bias=False)
        self.conditioning = Conditioning(size) if size.conditioning_size else None
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
            if name.endswith("attn_out.weight") or name == "conditioning.ff_out.weight":
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, where: Tensor, signal: Tensor | None = None) -> Tensor:
        """Logits of the positions where `where [B, L]` is true: `[count, V]`; `signal [B, L, d]` as `soft` makes it."""
        half = self.size.d_model // self.size.n_heads // 2
        frequency = self.size.rope_theta ** -(torch.arange(half, device=tokens.device) / half)
        angle = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * frequency
        x = self.wte(tokens)
        if self.conditioning is not None:
            x = x + self.conditioning(torch.zeros_like(x) if signal is None else signal)
        kind = tokens.device.type
        narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        cos, sin = angle.cos().to(narrow), angle.sin().to(narrow)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.ff_out(self.ln_f(x[where]))

    @torch.no_grad()
    def soft(self, tokens: Tensor, where: Tensor, logits: Tensor) -> Tensor:
        """What the next pass is conditioned on, `[B, L, d]`.

        The mean embedding under the prediction `logits [count, V]` at `where`, and elsewhere the token's own.
        """
        signal = self.wte(tokens)
        signal[where] = (logits.float().softmax(-1) @ self.wte.weight.float()).to(signal.dtype)
        return signal


def config(size: Size, start: int, end: int, mask: int) -> dict[str, object]:
    """The published form of `config.json` (the field names of LLaDA-8B); what conditions itself has two fields more."""
    numbers = asdict(size)
    if not size.conditioning_size:
        del numbers["conditioning_size"]
    noise = {"noise": "uniform"} if size.conditioning_size else {}
    return {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        **numbers,
        **noise,
        "embedding_size": numbers["vocab_size"],
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "weight_tying": False,
        "max_sequence_length": 512,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
        "mask_token_id": mask,
        "torch_dtype": "bfloat16",
    }
