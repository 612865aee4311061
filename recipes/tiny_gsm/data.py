"""Training rows for `tiny-gsm`: fresh problems for ever, none of them held out, batched by equal length."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from recipes.tiny_gsm.problems import Problem, sample_problem, write_reasoning
from recipes.tiny_gsm.tokenizer import END, START

HELD_OUT_SEED = 20_251_022
HELD_OUT_SIZE = 1000
REASONING, ANSWER = 96, 4  # slot lengths of the task; training varies the first, up to LONGEST
LONGEST = 160
BLOCK = 32  # the usual window of semi-autoregressive decoding
STEP_SHARES = {3: 0.2, 4: 0.25, 5: 0.25, 6: 0.2, 7: 0.1}


def draw_problem(rng: random.Random, tokenizer: Tokenizer, easy: bool = False) -> tuple[Problem, str]:
    """A problem with a solution that fits the reasoning slot (with at least one end token after it)."""
    while True:
        steps = rng.choice((1, 2, 3)) if easy else rng.choices(list(STEP_SHARES), list(STEP_SHARES.values()))[0]
        problem = sample_problem(rng, steps)
        for _ in range(8):
            reasoning = write_reasoning(problem, rng)
            if len(tokenizer.encode(reasoning).ids) < REASONING:
                return problem, reasoning


def held_out(tokenizer: Tokenizer) -> list[dict[str, object]]:
    """The held-out problems: `id, prompt, answer, steps, reasoning` (one of the valid reasonings)."""
    rng = random.Random(HELD_OUT_SEED)
    rows: list[dict[str, object]] = []
    seen: set[str] = set()
    while len(rows) < HELD_OUT_SIZE:
        problem, reasoning = draw_problem(rng, tokenizer)
        if problem.question in seen:
            continue
        seen.add(problem.question)
        rows.append(
            {
                "id": len(rows),
                "prompt": problem.question,
                "answer": problem.answer,
                "steps": problem.steps,
                "reasoning": reasoning.strip(),
            }
        )
    return rows


def write_held_out(tokenizer: Tokenizer, path: Path) -> None:
    """Writes the held-out problems as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in held_out(tokenizer)))


@dataclass(frozen=True)
class Batch:
    """Rows of one length: `tokens [B, L]`, `slot [B, L]` (where reasoning and answer stand)."""

    tokens: np.ndarray
    slot: np.ndarray


def batches(tokenizer: Tokenizer, size: int, seed: int, easy: bool) -> Iterator[Batch]:
    """Endless batches. Slot lengths vary from row to row so that totals are multiples of 8 (no padding needed)."""
    rng = random.Random(seed)
    exclude = {str(row["prompt"]) for row in held_out(tokenizer)}
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    middle = tokenizer.encode("\nAnswer:").ids
    buckets: dict[int, list[tuple[list[int], list[bool]]]] = {}
    while True:
        problem, reasoning = draw_problem(rng, tokenizer, easy=easy or rng.random() < 0.1)
        if problem.question in exclude:
            continue
        head = [start, *tokenizer.encode(f"Question: {problem.question}\nReasoning:").ids]
        body = tokenizer.encode(reasoning).ids
        answer = tokenizer.encode(f" {problem.answer}").ids
        fixed = len(head) + len(middle) + ANSWER
        longest = LONGEST if rng.random() < 0.3 else REASONING
        room = [n for n in range(len(body) + 1, longest + 8) if (fixed + n) % 8 == 0]
        slot = rng.choice(room) if rng.random() < 0.4 and not easy else room[0]
        tokens = head + body + [end] * (slot - len(body)) + middle + answer + [end] * (ANSWER - len(answer))
        mark = [False] * len(head) + [True] * slot + [False] * len(middle) + [True] * ANSWER
        bucket = buckets.setdefault(len(tokens), [])
        bucket.append((tokens, mark))
        if len(bucket) == size:
            yield Batch(np.array([b[0] for b in bucket]), np.array([b[1] for b in bucket]))
            buckets[len(tokens)] = []


def corrupt(batch: Batch, rng: np.random.Generator, given: float = 0.0) -> np.ndarray:
    """Which slot positions to mask, `[B, L]` bool; the share that is masked is stratified over the rows.

    A third of the rows masks uniformly, a third leans to the right, a third masks block by block, as decoding in
    windows of 32 does. The exact conditionals are the same under any of these; leaning only spends more of a small
    model's capacity on states that decoding really visits. In a share `given` of the rows the answer is never masked,
    so that reasoning towards a known answer is practised too; without it that is all but never seen.
    """
    size, length = batch.tokens.shape
    slot = batch.slot
    if given:
        in_answer = np.cumsum(slot[:, ::-1], 1)[:, ::-1] <= ANSWER
        slot = slot & ~((rng.random(size) < given)[:, None] & in_answer)
    rate = (rng.permutation(size) + rng.random(size)) / size
    kind = rng.integers(3, size=size)[:, None]
    lean = rng.uniform(0.3, 0.95, (size, 1))
    place = np.cumsum(slot, 1)
    total = slot.sum(1, keepdims=True)
    chance = rng.random((size, length))
    blocks = (place - 1) // BLOCK + 0.999 * chance
    key = np.select([kind == 0, kind == 1], [chance, lean * place / total + (1 - lean) * chance], blocks)
    key = np.where(slot, key, -1.0)
    count = np.maximum(1, np.round(rate * slot.sum(1))).astype(int)
    order = np.argsort(-key, axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(length)[None].repeat(size, 0), 1)
    return rank < count[:, None]
