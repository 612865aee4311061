"""Policies compared on a model of one's own: what each gets right, what it costs, and what it promises.

The promise: at most so many texts differ from those written one letter at a time.

python examples/compare_policies.py --limit 200

The model here stands for yours: it knows that texts are palindromes and nothing else, so two letters that mirror each
other must not be drawn in the same step. Needs `pip install 'mdsample[torch]'`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from mdsample_torch import from_module
from torch import Tensor

import mdsample
from mdsample.evaluation.bench import bench
from mdsample.tasks.catalog import Problem, Task
from mdsample.testing import Symbols

LETTERS = 6
TOKENIZER = Symbols(LETTERS)  # yours: mdsample.models.text.tokenizer.FileTokenizer reads a folder's tokenizer.json
#: at temperature 1 each draws from the model; one by one is what the others are compared with
POLICIES = ("random+top(1)", "random+steps(4)", "med", "eb(0.1)", "tv-budget(0.05)")


class Palindromes(torch.nn.Module):
    """A position wants the letter opposite, once that is known."""

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Logits `[B, L, V]` from tokens `[B, L]`; `valid` is false in padding, which is at the end of rows."""
        places = torch.arange(tokens.shape[1])
        opposite = tokens.gather(1, (valid.sum(1, keepdim=True) - 1 - places).clamp(0))
        letters = torch.tensor(TOKENIZER.encode("abcdef"))
        logits = torch.full((*tokens.shape, TOKENIZER.size), -30.0)
        logits[:, :, letters] = 9.0 * (opposite[:, :, None] == letters)
        return logits


def verdict(row: mdsample.Row) -> str:
    """What is right or wrong about a finished row."""
    text = row.slots["text"]
    return "palindrome" if text == text[::-1] else "other"


def problems() -> tuple[Problem, ...]:
    """A problem has an id, texts for the template's fields, and the right answer."""
    return tuple(Problem(number, {}, "palindrome") for number in range(1000))


TASK = Task("palindromes", "Texts of eight letters.", "{text:8}", problems, verdict, needs=("text",))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each policy, with 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=100, help="how many texts")
    options = parser.parse_args(arguments)

    model = from_module(Palindromes().eval(), TOKENIZER, max_length=16, name="palindromes")
    policies = [mdsample.parse(f"{policy}+temperature(1)") for policy in POLICIES]
    for name, score in zip(POLICIES, bench(model, TASK, policies, limit=options.limit), strict=True):
        right = score.accuracy
        print(
            f"{name:15} right {right.value:4.0%} [{right.low:3.0%}, {right.high:4.0%}], "
            f"{score.nfe.value:.1f} passes, at most {score.tv_bound:4.0%} differ"
        )


if __name__ == "__main__":
    main()
