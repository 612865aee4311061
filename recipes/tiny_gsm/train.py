"""Trains `tiny-gsm`: `python -m recipes.tiny_gsm.train --out DIR` (resumes from `DIR/checkpoint.pt`).

Every 200 steps it writes a checkpoint and exports the averaged weights to `DIR/model`, a folder that mdsample can load;
`mdsample bench --model DIR/model --limit 50` shows how far it is. Mask rates are stratified over (0, 1).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from recipes.fit import Plan, fit, write_model
from recipes.llada import Size, Transformer
from recipes.tiny_gsm import data, tokenizer

CARD = f'''description = "Arithmetic word problems of 3 to 7 steps; 2.8 million parameters, trained by recipes/tiny_gsm"
template = """
{tokenizer.TEMPLATE}"""
'''


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, log and finished model")
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
    model = Transformer(Size(vocab_size=-(-words.get_vocab_size() // 64) * 64))

    def batches(step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng((options.seed, step))
        while True:
            easy = step < options.easy_steps
            for batch in data.batches(words, options.batch, options.seed * 1_000_003 + step, easy):
                yield torch.from_numpy(batch.tokens), torch.from_numpy(data.corrupt(batch, rng, options.given))
                step += 1
                if easy and step >= options.easy_steps:
                    break

    special = (tokenizer.START, tokenizer.END, tokenizer.MASK)
    plan = Plan(options.out, options.steps, options.peak, words.token_to_id(tokenizer.MASK))
    fit(
        plan,
        model,
        batches,
        lambda weights: write_model(options.out / "model", model, weights, words, special, CARD),
        options.start,
    )


if __name__ == "__main__":
    main()
