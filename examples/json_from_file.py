"""JSON from a file: one text a line goes in, one valid object a line comes out.

python examples/json_from_file.py
python examples/json_from_file.py --model Dream-org/Dream-v0-Instruct-7B --input texts.txt --output objects.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mdsample

TEXTS = Path(__file__).parent / "data" / "problems.txt"
#: the object takes the place of the last slot; what is reasoned before it is not part of it
TEMPLATE = "Question: {prompt}\nReasoning:{reasoning:64}\nAnswer: {object:8}"


@dataclass
class Solution:
    """What is asked of each text. Write your own: any dataclass, pydantic model or JSON schema will do."""

    answer: int = field(metadata={"minimum": 0, "maximum": 99})


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads texts and writes objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-gsm", help="an embedded model, a folder, or a name on the hub")
    parser.add_argument("--input", type=Path, default=TEXTS, help="one text a line")
    parser.add_argument("--output", type=Path, default=Path("objects.jsonl"), help="JSON lines, in the same order")
    parser.add_argument("--limit", type=int, help="the first so many texts only")
    options = parser.parse_args(arguments)

    texts = options.input.read_text(encoding="utf-8").splitlines()[: options.limit]
    model = mdsample.load(options.model)
    objects = mdsample.sample(model, texts, template=TEMPLATE, returns=Solution, policy="ar-med(0.8)")
    lines = [json.dumps(asdict(one)) for one in objects]
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(lines)} objects, the first is {lines[0]}")


if __name__ == "__main__":
    main()
