"""How the embedded models `tiny-sudoku6` and `tiny-sudoku` are made: boards, puzzles, tokenizer, training."""
