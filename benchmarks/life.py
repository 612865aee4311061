"""Whether every preset and random policies keep what is promised, on masks and on uniform noise.

    python benchmarks/life.py                  # every preset and 300 random policies on each kind of noise
    python benchmarks/life.py --policies 50

A run must end in time, keep fixed text and final tokens, repeat, replay, resume, and give every row what it gives it
alone (`mdsample.testing.keeps_its_promises`). The first broken promise ends it with an error. Guidance by hidden text
(`cfg`) is left out where the noise is uniform: there it is refused.
"""

from __future__ import annotations

import common
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.core.template import Template
from mdsample.models.denoiser import Noise
from mdsample.policy.base import Policy
from mdsample.policy.guide import Cfg
from mdsample.policy.presets import PRESETS
from mdsample.testing import ScriptedDenoiser, Symbols, policies
from mdsample.testing.promises import keeps_its_promises

LETTERS = 6
TEXTS: list[dict[str, str]] = [{}, {}]


def main() -> None:
    """Prints how many runs kept their promises."""
    parser = common.command_line(__doc__)
    parser.add_argument("--policies", type=int, default=300)
    asked = parser.parse_args()
    common.print_head(["noise", "runs", "of presets", "rows that held a window"])
    for noise in ("mask", "uniform"):
        common.print_row([noise, *check(noise, asked.policies)])


def check(noise: Noise, count: int) -> tuple[int, int, int]:
    """How many runs there were, how many of presets, and in how many rows a token was written anew."""
    runs, held = 0, 0

    def keep(policy: Policy, seed: int) -> None:
        nonlocal runs, held
        model = ScriptedDenoiser(Symbols(LETTERS), seed, 2.0, noise=noise)
        if noise == "uniform" and policy.at("guide") and isinstance(policy.at("guide")[0], Cfg):
            policy = policy.without("guide")
        canvas = Template.parse("ab{text:7}c{answer:4}").canvas(model.tokenizer, TEXTS)
        result = keeps_its_promises(policy, model, canvas, seed)
        runs, held = runs + 1, held + int((result.state.rewritten > 0).sum())

    for name in PRESETS:
        keep(mdsample.parse(name), 1)
    presets = runs

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(policies(("answer",), vocab=LETTERS), st.integers(0, 9))
    def random(policy: Policy, seed: int) -> None:
        keep(policy, seed)

    random()
    return runs, presets, held


if __name__ == "__main__":
    main()
