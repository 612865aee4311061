"""Valid JSON on a model in DiffusionGemma's layout: 300 texts of a schema, each parsed and checked.

    python benchmarks/gemma_json.py [--rows 300]

Tiny random weights, one block of 128 positions; `diffusion-gemma` with 8 passes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from common import command_line
from mdsample_torch.backend import open_model
from pydantic import BaseModel, Field

import mdsample
from mdsample.backend.setup import Setup


class Person(BaseModel):
    """What is asked for."""

    name: str = Field(max_length=6)
    age: int = Field(ge=0, le=120)
    kind: Literal["friend", "colleague", "stranger"]
    scores: list[int] = Field(max_length=2)


def main() -> None:
    """Fills, checks and prints."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=300)
    count: int = parser.parse_args().rows
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    import gemma

    with tempfile.TemporaryDirectory() as folder:
        written = gemma.write(Path(folder) / "tiny", gemma.oracle(canvas=128, max_position_embeddings=256))
        model = open_model(written, Setup(device="cpu"))
        prompts = [f"row {number}: " + "the cat " * (number % 3) for number in range(count)]
        policy = "diffusion-gemma(size=128,passes=8)"
        answers: Any = mdsample.sample(model, prompts, policy=policy, returns=Person, batch_size=50)
        valid = sum(isinstance(answer, Person) for answer in answers)
        print(f"{valid} of {count} valid; the first: {answers[0].model_dump_json()}")


if __name__ == "__main__":
    main()
