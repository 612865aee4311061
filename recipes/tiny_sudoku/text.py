"""Tokens of a board as `mdsample.tasks.sudoku` writes it (` A1=5 A2=3 …`): each cell is a name and a digit.

The name before each cell is what lets a plain trunk see the board: its vector starts as the sum of a vector for the
row, one for the column and one for the box, so cells that share a unit have similar names from the first step.
"""

from __future__ import annotations

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from mdsample.tasks.sudoku import cells
from recipes.llada import Transformer
from recipes.tiny_sudoku.board import Board

START, END, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"


def build(board: Board) -> Tokenizer:
    """Bytes, with merges that make each cell's ` A1=` one token; digits stay tokens of their own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list[tuple[str, str]]()
    for name in cells(board.n):
        letter, number = name
        merges += [("Ġ", letter), (f"Ġ{letter}", number), (f"Ġ{name}", "=")]
    merges = list(dict.fromkeys(merges))
    tokens = [START, END, MASK, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.add_special_tokens([START, END, MASK])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" [A-I][1-9]=|[\s\S]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def name_tokens(board: Board, tokenizer: Tokenizer) -> list[int]:
    """The token of each cell's name."""
    return [tokenizer.token_to_id(f"Ġ{name}=") for name in cells(board.n)]


def digit_tokens(board: Board, tokenizer: Tokenizer) -> list[int]:
    """The token of each digit from 1."""
    return [tokenizer.token_to_id(str(digit)) for digit in range(1, board.n + 1)]


@torch.no_grad()
def name_cells(model: Transformer, board: Board, tokenizer: Tokenizer) -> None:
    """Starts the vectors of the cells' names as row + column + box."""
    row, column, box = torch.randn(3, board.n, model.size.d_model) * 0.05
    model.wte.weight[name_tokens(board, tokenizer)] = row[board.row] + column[board.column] + box[board.box]
