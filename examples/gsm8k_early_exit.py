"""GSM8K with an early exit: the answer is read while the reasoning is written, and a row stops once it is certain.

python examples/gsm8k_early_exit.py
python examples/gsm8k_early_exit.py --model GSAI-ML/LLaDA-8B-Instruct --reasoning 256 --problems test.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import mdsample

PROBLEMS = Path(__file__).parent / "data" / "problems.jsonl"
TEMPLATE = "Question: {{prompt}}\nReasoning:{{reasoning:{}}}\nAnswer:{{answer:4}}"
#: one token a forward pass; several where the model is certain; the same, and out once the answer slot is
POLICIES = ("entropy+top(1)", "med", "med+early-exit(0.1,slot='answer')")


def number(text: str) -> Fraction | None:
    """The number that a text is; `None` if it is not one."""
    try:
        return Fraction(text.strip().replace(",", "").removeprefix("$"))
    except (ValueError, ZeroDivisionError):
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the policies on the problems and prints how many each solves, and in how many passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-gsm", help="an embedded model, a folder, or a name on the hub")
    parser.add_argument("--problems", type=Path, default=PROBLEMS, help="GSM8K's own layout, JSON lines")
    parser.add_argument("--limit", type=int, default=4, help="how many of them")
    parser.add_argument("--reasoning", type=int, default=64, help="tokens that the reasoning may have")
    options = parser.parse_args(arguments)

    problems = [json.loads(line) for line in options.problems.read_text(encoding="utf-8").splitlines()][: options.limit]
    questions: list[str] = [problem["question"] for problem in problems]
    gold = [number(problem["answer"].split("####")[-1]) for problem in problems]

    model = mdsample.load(options.model)
    for policy in POLICIES:
        rows = mdsample.sample(model, questions, policy=policy, template=TEMPLATE.format(options.reasoning))
        solved = sum(number(row.slots["answer"]) == right for row, right in zip(rows, gold, strict=True))
        passes = fmean(row.nfe for row in rows)
        print(f"{policy:34} {solved} of {len(gold)} solved, {passes:.1f} forward passes a problem")


if __name__ == "__main__":
    main()
