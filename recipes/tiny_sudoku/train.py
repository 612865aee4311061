"""Trains `tiny-sudoku6` or `tiny-sudoku`: `python -m recipes.tiny_sudoku.train --board 2x3 --out DIR`.

Resumes from `DIR/checkpoint.pt`. Every 200 steps (`--every`) it writes a checkpoint, exports the averaged weights to
`DIR/model`, a folder that mdsample can load, and notes in `DIR/solved.jsonl` how many held-out puzzles a greedy
decoding solves.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from mdsample.tasks import sudoku
from recipes.fit import Plan, Rows, Weights, fit, masked, write_model
from recipes.llada import Size, Transformer
from recipes.tiny_sudoku import data, text
from recipes.tiny_sudoku.board import Board

ASKED = 100  # held-out puzzles that are solved at every checkpoint


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", type=_board, default=Board(3, 3), help="rows x columns of a box, 2x3 or 3x3")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, log and finished model")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--easy-steps", type=int, default=1000, help="first steps hide fewer cells")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--peak", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--pool", type=int, default=20_000, help="puzzles; symmetries make millions of each")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    board: Board = options.board
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    words = text.build(board)
    size = Size(
        d_model=options.width,
        n_layers=options.layers,
        n_heads=options.heads,
        n_kv_heads=options.heads,
        mlp_hidden_size=-(-options.width * 8 // 3 // 32) * 32,
        vocab_size=-(-words.get_vocab_size() // 64) * 64,
    )
    model = Transformer(size)
    text.name_cells(model, board, words)
    model.to(options.device)
    pool = data.ordinary(board, options.pool, options.seed)
    held_out = data.held_out(board)
    data.write_held_out(board, held_out, options.out)
    asked = {name: _first(puzzles, ASKED) for name, puzzles in held_out.items()}
    mask_id = words.token_to_id(text.MASK)

    def batches(step: int) -> Iterator[Rows]:
        for tokens, hidden in data.batches(board, words, pool, options.batch, options.seed, step, options.easy_steps):
            clean, where = (torch.from_numpy(array).to(options.device) for array in (tokens, hidden))
            yield masked(clean, where, mask_id)

    def export(weights: Weights) -> None:
        special = (text.START, text.END, text.MASK)
        write_model(options.out / "model", model, weights, words, special, _card(board, model))
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(dict(weights))
        shares = {
            f"{name} {order}": solved(model, board, words, puzzles, order, mask_id)
            for name, puzzles in asked.items()
            for order in ("margin", "random")
        }
        model.load_state_dict(kept)
        with (options.out / "solved.jsonl").open("a") as log:
            log.write(json.dumps(shares) + "\n")
        print(shares, flush=True)

    fit(Plan(options.out, options.steps, options.peak, options.every), model, batches, export)


def _board(written: str) -> Board:
    if not re.fullmatch(r"[23]x[23]", written):
        raise argparse.ArgumentTypeError(f"a box is 2x2, 2x3, 3x2 or 3x3; got {written!r}")
    return Board(int(written[0]), int(written[2]))


def _card(board: Board, model: Transformer) -> str:
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return (
        f'description = "Sudoku of {board.n}x{board.n} cells; {millions:.1f} million parameters, trained by '
        f'recipes/tiny_sudoku"\ntemplate = """\n{sudoku.board(board.n)}"""\n'
    )


def _first(puzzles: data.Puzzles, count: int) -> data.Puzzles:
    return data.Puzzles(puzzles.puzzle[:count], puzzles.solution[:count])


@torch.no_grad()
def solved(
    model: Transformer, board: Board, words: text.Tokenizer, puzzles: data.Puzzles, order: str, mask_id: int
) -> float:
    """Share of puzzles solved one cell at a time, each the most probable digit: a quick look while training."""
    device = model.wte.weight.device
    tokens, cells = data.rows(board, words, puzzles.solution)
    digits = torch.tensor(text.digit_tokens(board, words), device=device)
    right, at = torch.from_numpy(tokens).to(device)[:, cells], torch.from_numpy(cells).to(device)
    canvas = torch.from_numpy(tokens).to(device)
    blank = torch.from_numpy(puzzles.puzzle == 0).to(device)
    canvas[:, at] = torch.where(blank, mask_id, right)
    where = torch.zeros(canvas.shape, dtype=torch.bool, device=device)
    where[:, at] = True
    generator = torch.Generator().manual_seed(0)
    line = torch.arange(len(canvas), device=device)
    while blank.any():
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(canvas, where)
        p = logits.float()[:, digits].softmax(-1).view(*blank.shape, board.n)
        best = p.topk(2, -1)
        rank = best.values[..., 0] - best.values[..., 1]
        rank = torch.rand(blank.shape, generator=generator).to(device) if order == "random" else rank
        cell = torch.where(blank, rank, -1.0).argmax(1)
        going = blank.any(1)
        there = at[cell]
        chosen = digits[best.indices[line, cell, 0]]
        canvas[line, there] = torch.where(going, chosen, canvas[line, there])
        blank[line, cell] = False
    return float((canvas[:, at] == right).all(1).float().mean())


if __name__ == "__main__":
    main()
