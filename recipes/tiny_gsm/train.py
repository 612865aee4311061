"""Trains `tiny-gsm`: `python -m recipes.tiny_gsm.train --out DIR` (resumes from `DIR/checkpoint.pt`).

With `--noise uniform` it trains its twin `tiny-gsm-uniform`, which is shown random tokens where the other is shown
masks, is asked for every token of the slots, and sees what it predicted in the last pass.

Every 200 steps it writes a checkpoint and exports the averaged weights to `DIR/model`, a folder that mdsample can load;
`mdsample bench --model DIR/model --limit 50` shows how far it is. Mask rates are stratified over (0, 1).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from recipes.fit import Plan, Rows, fit, masked, write_model
from recipes.llada import Size, Transformer
from recipes.tiny_gsm import data, tokenizer

KINDS = {"mask": "2.8 million parameters", "uniform": "3.1 million parameters, uniform noise, self-conditioned"}
#: width of the gated middle by which the twin sees its last prediction
CONDITIONING = 512


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, log and finished model")
    parser.add_argument("--noise", choices=KINDS, default="mask", help="what blanks are shown as")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--start", type=Path, help="weights to begin with: an exported model.safetensors")
    parser.add_argument("--easy-steps", type=int, default=1500, help="first steps use problems of 1 to 3 steps")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peak", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--given", type=float, default=0.0, help="share of rows whose answer is never masked")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    words = tokenizer.build(options.out / "tokenizer.json")
    data.write_held_out(words, options.out / "held_out.jsonl")
    uniform: bool = options.noise == "uniform"
    size = Size(vocab_size=-(-words.get_vocab_size() // 64) * 64, conditioning_size=CONDITIONING if uniform else 0)
    model = Transformer(size)
    mask_id = words.token_to_id(tokenizer.MASK)

    def batches(step: int) -> Iterator[Rows]:
        rng = np.random.default_rng((options.seed, step))
        while True:
            easy = step < options.easy_steps
            for batch in data.batches(words, options.batch, options.seed * 1_000_003 + step, easy):
                clean, hidden = torch.from_numpy(batch.tokens), data.corrupt(batch, rng, options.given)
                if uniform:
                    shown = np.where(hidden, rng.integers(size.vocab_size, size=hidden.shape), batch.tokens)
                    yield Rows(clean, torch.from_numpy(shown), torch.from_numpy(batch.slot))
                else:
                    yield masked(clean, torch.from_numpy(hidden), mask_id)
                step += 1
                if easy and step >= options.easy_steps:
                    break

    special = (tokenizer.START, tokenizer.END, tokenizer.MASK)
    about = f"Arithmetic word problems of 3 to 7 steps; {KINDS[options.noise]}, trained by recipes/tiny_gsm"
    card = f'description = "{about}"\ntemplate = """\n{tokenizer.TEMPLATE}"""\n'
    plan = Plan(options.out, options.steps, options.peak)
    fit(
        plan,
        model,
        batches,
        lambda weights: write_model(options.out / "model", model, weights, words, special, card),
        options.start,
    )


if __name__ == "__main__":
    main()
