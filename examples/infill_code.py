"""Infilling code: what stands before and after a hole is fixed, and the hole holds a Python expression.

python examples/infill_code.py
python examples/infill_code.py --model apple/DiffuCoder-7B-Base --hole 1-12 --file mean.py

The embedded model has never seen code: what it writes parses, and means nothing.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path

import mdsample

MARK = "<hole>"
CODE = f"def mean(numbers):\n    total = sum(numbers)\n    return {MARK}\n"
#: names, calls of one name, whole numbers, joined by operators
TERM = r"(?:[a-z_]{1,12}(?:\([a-z_]{1,12}\))?|[1-9][0-9]{0,2})"
EXPRESSION = mdsample.Regex(rf"{TERM}(?: [-+*/] {TERM}){{0,3}}", slot="hole")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints ways to fill the hole, each different one once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-gsm", help="an embedded model, a folder, or a name on the hub")
    parser.add_argument("--file", type=Path, help=f"code with {MARK} in it")
    parser.add_argument("--hole", default="2-4", help="tokens that the hole may have; every length is tried")
    parser.add_argument("-n", type=int, default=3, help="how many times it is filled")
    options = parser.parse_args(arguments)

    code = CODE if options.file is None else options.file.read_text(encoding="utf-8")
    before, mark, after = code.partition(MARK)
    if not mark:
        parser.error(f"{options.file} has no {MARK}")
    # rows differ by their numbers, which their random numbers hang on
    prompts: list[dict[str, str]] = [{"before": before, "after": after}] * options.n
    model = mdsample.load(options.model)
    rows = mdsample.sample(
        model,
        prompts,
        template=f"{{before}}{{hole:{options.hole}}}{{after}}",
        policy=mdsample.med() + mdsample.Temperature(1) + EXPRESSION,
    )
    for hole in dict.fromkeys(row.slots["hole"] for row in rows):
        ast.parse(before + hole + after)
        print(f"{before}{hole}{after}")


if __name__ == "__main__":
    main()
