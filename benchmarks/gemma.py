"""DiffusionGemma's own sampler as a sum of parts, against `generate` of transformers on tiny random weights.

    python benchmarks/gemma.py [--prompts 50] [--backend torch]

Random sources of transformers are replaced by the rows' own uniforms, drawn by inverse CDF; tokens that are never
written here are forbidden there. Prompts of 1 to 30 tokens, one and three blocks of 8 positions, alone and four in a
pass; published settings and two others. What is printed: rows with the same tokens and the same number of passes.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, print_head

from mdsample.backend.setup import Setup
from mdsample.core.canvas import Canvas
from mdsample.core.uniforms import Uniforms, row_key
from mdsample.policy.parsing import parse
from mdsample.sampling.sampler import Sampler

#: entropy bound, first and last temperature, passes, entropy and passes of convergence
SETTINGS = [(0.1, 0.8, 0.4, 48, 0.005, 1), (0.5, 1.0, 0.2, 12, 2.0, 1), (0.02, 0.6, 0.5, 20, 0.5, 0)]


def text(bound: float, start: float, end: float, most: int, entropy: float, still: int) -> str:
    """The same as a policy."""
    return (
        f"entropy+entropy-bound({bound})+temperature(1)+annealing({start},end={end},steps={most})"
        f"+renoise({most})+converged({entropy},passes={still})"
    )


def main() -> None:
    """Compares and prints."""
    parser = command_line(__doc__)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--backend", default="torch")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    import gemma

    logging.getLogger("transformers").setLevel(logging.ERROR)
    oracle, rng = gemma.oracle(head=2.0), np.random.default_rng(0)
    prompts: list[list[int]] = [rng.integers(5, 290, rng.integers(1, 31)).tolist() for _ in range(given.prompts)]
    print_head(["settings", "blocks", "rows a pass", "equal", "passes", "converged early"], text=1)
    with tempfile.TemporaryDirectory() as folder:
        opened = importlib.import_module(f"mdsample_{given.backend}.backend").open_model
        model = opened(gemma.write(Path(folder) / "tiny", oracle), Setup(device="cpu"))
        banned = np.arange(gemma.V) >= model.tokenizer.size
        banned[model.tokenizer.mask_id] = True
        for settings in SETTINGS:
            sampler = Sampler(parse(text(*settings)), seed=7)
            for blocks in (1, 3):
                expected: list[Any] = []
                for number, prompt in enumerate(prompts):
                    key, width = row_key(7, f"row {number}"), len(prompt) + blocks * gemma.BLOCK

                    def draws(purpose: str, step: int, key: Any = key, width: int = width) -> Any:
                        return Uniforms([key], np.array([step], np.int32), width).at(purpose)[0]

                    expected.append(gemma.generate(oracle, prompt, blocks, settings, draws, banned))
                for size in (1, 4):
                    found = run(model, sampler, prompts, blocks * gemma.BLOCK, size)
                    equal = sum(one == other for one, other in zip(found, expected, strict=True))
                    passes = [count for _, count in expected]
                    early = sum(count < blocks * settings[3] for count in passes)
                    row = [text(*settings), blocks, size, f"{equal} of {len(prompts)}", f"{np.mean(passes):.1f}", early]
                    print("| " + " | ".join(map(str, row)) + " |", flush=True)


def run(model: Any, sampler: Sampler, prompts: list[list[int]], new: int, size: int) -> list[tuple[list[int], int]]:
    """Tokens after each prompt, and passes."""
    mask = model.tokenizer.mask_id
    out: list[tuple[list[int], int]] = []
    for first in range(0, len(prompts), size):
        group = prompts[first : first + size]
        canvas = Canvas.of_rows(
            [[*prompt, *[mask] * new] for prompt in group],
            [[-1] * len(prompt) + [0] * new for prompt in group],
            ("text",),
            mask,
            [f"row {first + number}" for number in range(len(group))],
        )
        state = sampler.run(model, canvas).state
        for row, prompt in enumerate(group):
            out.append((state.tokens[row, len(prompt) : len(prompt) + new].tolist(), int(state.nfe[row])))
    return out


if __name__ == "__main__":
    main()
