"""Tiny random DiffusionGemma models of transformers, as folders that transformers itself saves."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from checkpoints import tokenizer_json
from numpy.typing import NDArray

from backends import Backend
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.models.denoiser import Query
from mdsample.policy.guide import NoGuide

#: number of logits, and positions of a block
V, BLOCK = 320, 8
_TEXT: dict[str, Any] = {
    **{"vocab_size": V, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "global_head_dim": 16, "num_global_key_value_heads": 1},
    **{"max_position_embeddings": 96, "sliding_window": 6, "num_experts": 6, "top_k_experts": 2},
    **{"moe_intermediate_size": 20, "use_bidirectional_attention": "vision", "final_logit_softcapping": 30.0},
    **{"layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
}
_VISION: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8},
    **{"num_key_value_heads": 2, "model_type": "gemma4_vision"},
}
#: tokens of a prompt and of what follows it; beyond the window of 6 positions, too
LENGTHS = [(1, 8), (3, 5), (5, 8), (6, 8), (7, 3), (20, 8)]
#: the tokens of Gemma's that matter, in the place of those of `tokenizer_json`
TOKENS = {"<|startoftext|>": "<pad>", "<|endoftext|>": "<eos>", "<|mdm_mask|>": "<bos>"}


@functools.cache
def oracle(seed: int = 0, head: float = 0.2, canvas: int = BLOCK, **text: Any) -> Any:
    """A model of transformers with random weights, far from its initialisation; `head`: size of the embedding's."""
    import torch
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    config = DiffusionGemmaConfig(text_config={**_TEXT, **text}, vision_config=dict(_VISION), canvas_length=canvas)
    config._attn_implementation = "eager"
    config.text_config._experts_implementation = "eager"
    torch.manual_seed(seed)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not any(part in name for part in ("vision", "inv_freq", "embed_scale")):
                # a block that hangs too much on what was predicted before enlarges rounding errors from pass to pass
                size = head if "embed_tokens" in name else 0.1 if "self_conditioning" in name else 0.2
                tensor.copy_(
                    torch.rand_like(tensor) * 0.6 + 0.7 if tensor.ndim == 1 else torch.randn_like(tensor) * size
                )
    return model


def write(folder: Path, model: Any, published: bool = True) -> Path:
    """The model in a folder with a tokenizer; `published`: heads are named in config.json as Google names them."""
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if published:
        del config["text_config"]["per_layer_config"]
        config["text_config"] |= {name: _TEXT[name] for name in ("global_head_dim", "num_global_key_value_heads")}
    path.write_text(json.dumps(config))
    made = json.loads(tokenizer_json())
    # Gemma's special tokens come first, <mask> as the fifth
    words = [word for word, _ in sorted(made["model"]["vocab"].items(), key=lambda entry: entry[1])][3:]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"]
    made["model"]["vocab"] = {word: number for number, word in enumerate([*special, *words])}
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] = [{"id": number, "content": text, **kind} for number, text in enumerate(special)]
    (folder / "tokenizer.json").write_text(json.dumps(made))
    roles = {"eos_token": "<eos>", "bos_token": "<bos>", "pad_token": "<pad>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder


def logits(model: Any, row: NDArray[np.int32], prompt: int, before: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Logits `[n, V]` of what follows the prompt, a block at most; `before`: the last ones, which condition it."""
    import torch

    with torch.no_grad():
        return (
            model(
                input_ids=torch.from_numpy(row[None, :prompt].astype(np.int64)),
                decoder_input_ids=torch.from_numpy(row[None, prompt:].astype(np.int64)),
                self_conditioning_logits=None if before is None else torch.from_numpy(before[None]),
            )
            .logits[0]
            .numpy()
        )


def rows(lengths: list[tuple[int, int]], seed: int = 0) -> tuple[NDArray[np.int32], Any, Any]:
    """Random tokens of ragged rows, where they are valid, and where they were open."""
    place, prompt = np.arange(max(map(sum, lengths)) + 2), np.array(lengths)[:, :1]
    valid = place < prompt + np.array(lengths)[:, 1:]
    tokens = np.random.default_rng(seed).integers(0, V, valid.shape).astype(np.int32)
    return tokens, valid, valid & (place >= prompt)


def query(tokens: Any, valid: Any, opened: Any, step: int = 0) -> Query:
    """A look at what is open, to be remembered."""
    everything = Restriction(np.ones((1, V), np.bool_), np.zeros(tokens.shape, np.int32))
    names = Rows([(0, number) for number in range(len(tokens))], np.full(len(tokens), step, np.int32))
    return Query(tokens, valid, opened, valid & ~opened, everything, NoGuide(), names, remember=True)


def passes(backend: Backend, folder: Path) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Logits `[N, V]` of transformers and of a backend in three passes, each but the first conditioned on the last."""
    model, (tokens, valid, opened) = backend.open(folder), rows(LENGTHS)
    before: list[Any] = [None] * len(LENGTHS)
    memory: Any = ()
    for seed in range(3):
        tokens = np.where(opened, rows(LENGTHS, seed)[0], tokens)
        expected = [
            logits(oracle(), row[real], prompt, last)
            for row, real, (prompt, _), last in zip(tokens, valid, LENGTHS, before, strict=True)
        ]
        yield np.concatenate(expected), backend.logits(model.trunk, tokens, valid, opened, opened, memory)
        asked = attrs.evolve(query(tokens, valid, opened), memory=memory)
        memory, before = model.predict(asked).memories, expected


def generate(
    model: Any, prompt: list[int], canvases: int, policy: Any, draws: Any, banned: NDArray[np.bool_]
) -> tuple[list[int], int]:
    """What `generate` of transformers gives after a prompt, and its passes, with random sources that are ours.

    `policy`: entropy bound, first and last temperature, passes, entropy and passes of convergence. `draws(purpose,
    step)`: uniforms `[L]` of the row. `banned [V]`: tokens that must not be written.
    """
    import torch
    from transformers.models.diffusion_gemma import generation_diffusion_gemma as published

    bound, start, end, most, entropy, still = policy
    step, block = [-1], [-1]

    def span() -> slice:
        first = len(prompt) + block[0] * BLOCK
        return slice(first, first + BLOCK)

    def noise(self: Any, batch_size: int, device: Any) -> Any:
        # it is called after each step, and once more where a canvas begins
        return torch.from_numpy((draws("noise", step[0] + 1)[span()] * V).astype(np.int64))[None]

    def begin(self: Any, **given: Any) -> Any:
        block[0] += 1
        return prepare(self, **given)

    def draw(probabilities: Any, num_samples: int) -> Any:
        cdf = probabilities.numpy().astype(np.float64).cumsum(1)
        goal = draws("draw", step[0])[span(), None] * cdf[:, -1:]
        return torch.from_numpy((cdf > goal).argmax(1))[:, None]

    def count(self: Any, **given: Any) -> Any:
        step[0] += 1
        return denoise(self, **given)

    def ban(input_ids: Any, scores: Any) -> Any:
        return scores.masked_fill(torch.from_numpy(banned), -torch.inf)

    mixin = published.DiffusionGemmaGenerationMixin
    prepare, denoise = mixin._prepare_denoiser_inputs, mixin._denoising_step
    settings = published.DiffusionGemmaGenerationConfig(
        max_new_tokens=canvases * BLOCK,
        max_denoising_steps=most,
        sampler_config=published.EntropyBoundSamplerConfig(bound),
        t_min=end,
        t_max=start,
        stability_threshold=still,
        confidence_threshold=entropy,
        pad_token_id=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published.EntropyBoundSampler, "initialize_canvas", noise)
        patch.setattr(mixin, "_prepare_denoiser_inputs", begin)
        patch.setattr(mixin, "_denoising_step", count)
        patch.setattr(torch, "multinomial", draw)
        processors = published.LogitsProcessorList([ban])
        out = model.generate(torch.tensor([prompt]), generation_config=settings, logits_processor=processors)
    return out.sequences[0, len(prompt) :].tolist(), step[0] + 1
