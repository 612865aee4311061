"""One law for all backends: reference, Torch and MLX give the same tokens, whatever the policy, shape and cache."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from checkpoints import FAMILIES, WIDE, family_weights, quantised, write_family
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from queries import query

from backends import fitting

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from mdsample_cli.main import main

import mdsample
from mdsample import testing
from mdsample.models.cache import Cache, Exact
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.guide import Annealing, Cfg, Cooling, NoGuide
from mdsample.policy.order import Lookahead
from mdsample.policy.presets import PRESETS
from mdsample.tasks.catalog import TASKS

TEMPLATE = mdsample.Template.parse("Q {prompt} R{reasoning:6:blind} A{answer:3}")
#: ragged, so that rows are padded; alone, nothing is
TEXTS = [[{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}], [{"prompt": "Ben has 7"}]]
POLICIES = testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the"))
BACKENDS = ("torch", "mlx")
BLOCK_CAUSAL = ("sdar", "sdar_moe", "llada2_moe", "fast_dllm", "dream_reasoner", "stable_diffcoder", "nemotron")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {family: write_family(place / family, family) for family in FAMILIES}


@functools.cache
def opened(folder: Path, backend: str, cache: Cache | None = None) -> Denoiser:
    where = None if backend == "reference" else "cpu"
    return mdsample.load(folder, backend, device=where, dtype="float32", cache=cache)


def same(policy: Policy, models: list[Denoiser], texts: list[dict[str, str]], seed: int) -> None:
    canvas, policy = TEMPLATE.canvas(models[0].tokenizer, texts), fitting(policy, models[0])
    expected, *others = (testing.run(policy, model, canvas, seed) for model in models)
    for found in others:
        for row in range(len(texts)):
            testing.same_row(expected, row, found, row)


def ties(policy: Policy, family: str) -> bool:
    """Whether equal scores are certain: what a trial in a later block leaves is the same for all in a family that
    does not see later blocks, and without the position's own entropy only rounding tells them apart."""
    return family in BLOCK_CAUSAL and any(isinstance(part, Lookahead) and part.own == 0 for part in policy.parts)


def sharp(policy: Policy) -> bool:
    """Whether a guide divides scores, and with them the rounding of float32, by so little that it is seen."""
    return any(
        (isinstance(part, Cooling) and part.t < 0.1)
        or (isinstance(part, Annealing) and min(part.start, part.end) < 0.1)
        for part in policy.parts
    )


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(POLICIES, st.sampled_from(sorted(FAMILIES)), st.sampled_from(TEXTS), st.integers(0, 99))
def test_random_policies(folders: dict[str, Path], policy: Policy, family: str, texts: Any, seed: int) -> None:
    assume(not ties(policy, family) and not sharp(policy))
    same(policy, [opened(folders[family], name) for name in ("reference", *BACKENDS)], texts, seed)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        ["stable(0.004,shift=0.5,looks=1)", "confidence+stable(0.004,shift=1)", "random+stable(0.003,shift=3)"]
    )
    | st.sampled_from(["lookahead(3)", "lookahead(2,own=0)+top(2)"])
    | st.sampled_from(["top(3)+below-confidence(0.005)", "confidence+steps(3)+below-confidence(0.9,limit=4)"])
    | st.sampled_from(["p2(steps=5)", "p2(1.3,steps=9)", "p2(0.9,steps=20)"]),
    st.sampled_from(["", "+temperature(1)", "+cfg(1)"]),
    st.sampled_from(sorted(FAMILIES)),
    st.sampled_from(TEXTS),
    st.integers(0, 99),
)
def test_looks_compared_tried_and_read_again(
    folders: dict[str, Path], text: str, rest: str, family: str, texts: Any, seed: int
) -> None:
    models = [opened(folders[family], name) for name in ("reference", *BACKENDS)]
    same(mdsample.parse(text + rest), models, texts, seed)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(POLICIES, st.sampled_from(BLOCK_CAUSAL), st.sampled_from(TEXTS), st.integers(0, 99))
def test_random_policies_with_the_exact_cache(
    folders: dict[str, Path], policy: Policy, family: str, texts: Any, seed: int
) -> None:
    assume(not ties(policy, family) and not sharp(policy))
    models = [opened(folders[family], "reference"), *(opened(folders[family], name, Exact()) for name in BACKENDS)]
    same(policy, models, texts, seed)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_quantised_weights(family: str, bits: int, tmp_path: Path) -> None:
    weights, _ = quantised(family_weights(family, WIDE[family]), bits, 32)
    folder = write_family(tmp_path, family, config=WIDE[family], weights=weights)
    models = [opened(folder, name) for name in ("reference", *BACKENDS)]
    for text in ("med", "eb+temperature(1)", "llada+temperature(0.7,top_p=0.9)"):
        same(mdsample.parse(text), models, TEXTS[0], 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("guide", [NoGuide(), Cfg(1.5), Cfg(0.0)])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_statistics(folders: dict[str, Path], family: str, guide: Any, backend: str) -> None:
    expected, found = (opened(folders[family], name).predict(query(guide)).marginals for name in ("reference", backend))
    assert np.array_equal(found.token, expected.token)
    for name in ("log_probability", "second", "entropy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("guide", [NoGuide(), Cfg(1.5)])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tokens_that_stand(folders: dict[str, Path], family: str, guide: Any, backend: str) -> None:
    asked = query(guide)
    looks = [
        opened(folders[family], name).predict(attrs.evolve(asked, wanted=asked.valid))
        for name in ("reference", backend)
    ]
    row, position = (x.astype(np.int32) for x in np.nonzero(asked.valid & (asked.tokens != 2)))
    expected, found = (prediction.log_probabilities(row, position, asked.tokens[row, position]) for prediction in looks)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    # what is asked of blanks is none of it
    blank = asked.wanted
    for prediction, name in zip(looks, ("reference", backend), strict=True):
        alone = opened(folders[family], name).predict(asked).marginals
        np.testing.assert_allclose(prediction.marginals.entropy[blank], alone.entropy[blank], rtol=2e-5, atol=2e-5)


#: every preset at temperature 1, or at the temperature that it has of its own, and some at 0
PRESET_TEXTS = [
    *(
        name if make().at("draw") else f"{name}+temperature(1)"
        for name, make in sorted(PRESETS.items())
        if name != "p2"  # as published it takes hundreds of passes for a canvas of any size
    ),
    "p2(steps=16)+temperature(1)",
    *("llada(16)", "med", "fast-dllm", "p2(steps=16)", "whole+random+top(1)"),
]


# MLX's wheel for Linux multiplies by the reference BLAS, at 3 GFLOP/s
SHORT = TASKS["tiny-gsm"].template.replace(":96}", ":12}")


@pytest.mark.slow
@pytest.mark.parametrize("policy", PRESET_TEXTS)
def test_every_preset_on_tiny_gsm(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[Any] = []
    (tmp_path / "in.jsonl").write_text(json.dumps(dict(TASKS["tiny-gsm"].read()[0].texts)))
    for name in ("reference", *BACKENDS):
        options = ["--backend", name, "--device", "cpu", "--dtype", "float32", "--policy", policy, "--template", SHORT]
        assert main(["run", "--json", "--input", str(tmp_path / "in.jsonl"), *options]) == 0
        (row,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert row["backend"] == name
        said.append((row["text"], row["slots"], row["nfe"]))
    assert said == said[:1] * 3
