"""A list of texts as a language: each as the tokenizer spells it, then end tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdsample.constraints.table import Table
from mdsample.core.language import Automaton
from mdsample.core.tokens import Tokenizer


def from_texts(texts: Sequence[str], tokenizer: Tokenizer, vocab_size: int) -> Automaton:
    """These texts and no other: the tokens of each, with or without the end of a chat's turn, then end tokens.

    A text whose slot has no room for what follows it may break off there. Without an end token nothing follows.
    """
    steps: list[dict[int, int]] = [{}]
    accepting: set[int] = set()

    def along(state: int, tokens: Sequence[int], *, accept: bool) -> int:
        for token in tokens:
            if token not in steps[state]:
                steps[state][token] = len(steps)
                steps.append({})
            state = steps[state][token]
            if accept:
                accepting.add(state)
        return state

    ended = [along(0, tokenizer.encode(text), accept=False) for text in texts]
    accepting.update(ended)
    if tokenizer.end_id is not None:
        closed = [*ended, *(along(state, tokenizer.turn_end, accept=True) for state in ended)]
        last = len(steps)
        steps.append({tokenizer.end_id: last})
        accepting.add(last)
        for state in closed:
            steps[state].setdefault(tokenizer.end_id, last)
    tokens = sorted({token for out in steps for token in out})
    classes = np.zeros(vocab_size, np.int32)
    classes[tokens] = np.arange(1, len(tokens) + 1)
    after = np.full((len(steps), len(tokens) + 1), len(steps), np.int32)
    for state, out in enumerate(steps):
        for token, target in out.items():
            after[state, classes[token]] = target
    return Table(after, np.isin(np.arange(len(steps)), sorted(accepting))).automaton(classes)
