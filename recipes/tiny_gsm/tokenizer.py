"""The tokenizer of `tiny-gsm`: byte-level BPE, so that any text has tokens, with every digit a token of its own."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.tiny_gsm.problems import ITEMS, LETTERS, NAMES, OPENERS, REMARKS, sample_problem, write_reasoning

START, END, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
#: the text that training and use share; `{name:n}` is a slot of n blanks, `{prompt}` is filled in
TEMPLATE = "Question: {prompt}\nReasoning:{reasoning:96}\nAnswer:{answer:4}"


def build(path: Path) -> Tokenizer:
    """Trains the tokenizer on generated text (a second) and writes `tokenizer.json` to `path`."""
    rng = random.Random(0)
    problems = [sample_problem(rng, rng.randint(3, 7)) for _ in range(3000)]
    text = [f"Question: {p.question}\nReasoning:{write_reasoning(p, rng)}\nAnswer: {p.answer}" for p in problems]
    words = [f" {w}" for w in (*NAMES, *ITEMS, *LETTERS)] + [*OPENERS, *REMARKS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"'s| ?\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        special_tokens=[START, END, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text + words * 3, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer
