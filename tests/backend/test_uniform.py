"""LLaDA's layout with uniform noise and self-conditioning: three backends beside the module that is trained."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import attrs
import gemma
import numpy as np
import pytest
import torch
from checkpoints import CONFIG, random_weights, write_checkpoint
from installed import on

import mdsample
from mdsample.errors import CacheError, ModelError
from mdsample.models.denoiser import Denoiser
from mdsample.policy.presets import PRESETS
from recipes.llada import Size, Transformer

UNIFORM = {**CONFIG, "noise": "uniform", "conditioning_size": 20}
#: tokens of ragged rows, of which the first few are fixed
LENGTHS = [(3, 11), (1, 17), (9, 9)]
#: backends that are installed
HERE = ["reference", *(name for name in ("torch", "mlx") if importlib.util.find_spec(name))]
#: they take as many passes as they are told to, however few blanks there are
SHORTER = {"p2": "p2(steps=6)", "diffusion-gemma": "diffusion-gemma(passes=5)"}


def weights() -> dict[str, Any]:
    """Far from initialisation, but so that rounding errors do not grow from pass to pass."""
    return {name: x * 0.6 if x.ndim == 2 else x for name, x in random_weights(UNIFORM).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("uniform") / "tiny", config=UNIFORM, weights=weights())


@pytest.fixture(scope="module", params=["reference", on("torch", "torch"), on("mlx", "mlx")])
def model(request: pytest.FixtureRequest, folder: Path) -> Denoiser:
    return mdsample.load(folder, request.param)


def trained() -> Transformer:
    size = {name: UNIFORM[name] for name in Size.__dataclass_fields__}
    module = Transformer(Size(**size))  # pyright: ignore[reportArgumentType]
    module.load_state_dict({k.removeprefix("model.transformer."): torch.from_numpy(x) for k, x in weights().items()})
    return module


def test_logits_of_several_passes_are_those_of_the_module_that_is_trained(model: Denoiser) -> None:
    module, (tokens, valid, opened) = trained(), gemma.rows(LENGTHS)
    opened[1, 6] = False
    memory: Any = ()
    signals: list[Any] = [None] * len(LENGTHS)
    for seed in range(3):
        tokens = np.where(opened, gemma.rows(LENGTHS, seed)[0], tokens)
        asked = attrs.evolve(gemma.query(tokens, valid, opened), memory=memory)
        prediction: Any = model.predict(asked)
        for row, count in enumerate(map(sum, LENGTHS)):
            shown, where = (torch.from_numpy(array[row : row + 1, :count]) for array in (tokens.astype(int), opened))
            with torch.no_grad():
                logits = module(shown, where, signals[row])
                signals[row] = module.soft(shown, where, logits)
            places = np.flatnonzero(opened[row]).astype(np.int32)
            expected = logits.log_softmax(-1).numpy()
            for token in (0, 7, 300):
                stated = np.full(len(places), row, np.int32), places, np.full(len(places), token, np.int32)
                assert np.abs(prediction.log_probabilities(*stated) - expected[:, token]).max() < 1e-4
        memory = prediction.memories


def test_every_preset_fills_every_blank_and_rows_are_independent(model: Denoiser) -> None:
    template = mdsample.Template.parse("Q {prompt} R{reasoning:9} A{answer:3}")
    texts = [{"prompt": text} for text in ("", "the cat", "Ann has 12 coins")]
    for name in sorted(PRESETS):
        sampler = mdsample.Sampler(SHORTER.get(name, name), seed=1)
        together = sampler.run(model, template.canvas(model.tokenizer, texts)).rows
        alone = sampler.run(model, template.canvas(model.tokenizer, texts[:1])).rows[0]
        assert (together[0].tokens.tolist(), together[0].nfe) == (alone.tokens.tolist(), alone.nfe), name
        assert all(row.unfilled == 0 for row in together), name


def test_what_does_not_suit_it_is_said(folder: Path, tmp_path: Path) -> None:
    for cache in ("prefix", "dual"):
        with pytest.raises(CacheError, match="all of a row sees what was predicted in the last pass"):
            mdsample.load(folder, "torch", cache=cache)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"noise": "gaussian"}, "noise = 'gaussian' is not implemented; 'mask' or 'uniform' is"),
        ({"conditioning_size": -1}, "conditioning_size must be a positive whole number; found -1"),
    ]
    for number, (change, said) in enumerate(wrong):
        with pytest.raises(ModelError, match=said):
            mdsample.load(write_checkpoint(tmp_path / str(number), config=change, weights=weights()), "reference")


@pytest.mark.parametrize("policy", ["diffusion-gemma(passes=24)", "med+early-exit"])
def test_the_embedded_twin_writes_the_same_on_all_backends(policy: str) -> None:
    problems = ["Ann has 3 coins. Ben has 5 more coins than Ann. How many coins does Ben have?"] * 2
    ran = [mdsample.sample(mdsample.load("tiny-gsm-uniform", name), problems, policy=policy) for name in HERE]
    assert {row.slots["answer"] for row in ran[0]} == {"8"}
    for rows in ran[1:]:
        assert [(row.tokens.tolist(), row.nfe) for row in rows] == [(row.tokens.tolist(), row.nfe) for row in ran[0]]
