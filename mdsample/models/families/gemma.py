"""What the layers of Gemma 4 have beyond those of other trunks, as DiffusionGemma is published with them."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Floats, Longs


@attrs.frozen(kw_only=True)
class Gemma:
    """Layers that see a window and layers that see everything, a dense middle beside the experts, self-conditioning.

    `Trunk`'s own heads and rotary base are those of the layers with a window. The others have keys that serve as values
    as well, before keys are normalised and turned. Queries, keys and values are normalised head by head, scores are not
    scaled, the gates are GELUs (by tanh). What attention, the dense middle, the experts and both together give is
    normalised before it is added; a layer's output is multiplied by one number in the context, by another in the block
    that is being filled. There a token's embedding is joined by what was predicted in its place the last time.
    """

    #: of each layer, whether it sees no further back than `window` positions
    near: tuple[bool, ...]
    #: what such a layer sees, positions: in the context the last ones, itself among them; in the block one fewer of the
    #: context's last ones, and all of the block
    window: int
    #: key and value heads, and the width of one head, of layers that see everything
    kv_heads: int
    head_dim: int
    #: their rotary base, and how many of the `head_dim / 2` pairs are turned; the others have no position
    rope_theta: float
    turned: int
    #: logits are `softcap` · tanh(logits / `softcap`)
    softcap: float

    def turns(self, positions: Longs) -> tuple[Floats, Floats]:
        """Cosines and sines of layers that see everything, at `positions [n]`, float32 `[n, 1, head_dim / 2]` each."""
        half = self.head_dim // 2
        pair = np.arange(half)
        frequencies = np.where(pair < self.turned, self.rope_theta ** -(pair / half), 0.0)
        angles = (positions[:, None] * frequencies)[:, None]
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def shapes(self, d: int, *, layer: int, heads: int, sizes: tuple[int, int], mlp: int) -> dict[str, tuple[int, ...]]:
        """What a layer has beside its experts, by our own name; `sizes`: its key heads, and the width of one head."""
        kv, size = sizes
        norms = ("attention_norm", "attention_out_norm", "mlp_norm", "dense_out_norm", "experts_norm")
        shapes: dict[str, tuple[int, ...]] = {
            name: (d,) for name in (*norms, "experts_out_norm", "mlp_out_norm", "router_scale")
        }
        shapes |= {"q": (heads * size, d), "k": (kv * size, d), "o": (d, heads * size)}
        shapes |= {"v": (kv * size, d)} if self.near[layer] else {}
        shapes |= {"q_norm": (size,), "k_norm": (size,), "scalar": (1,), "context_scalar": (1,)}
        return shapes | {"gate": (mlp, d), "up": (mlp, d), "down": (d, mlp)}
