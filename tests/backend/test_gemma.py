"""DiffusionGemma against transformers: the same weights, with and without what was predicted before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import gemma
import numpy as np
import pytest

from backends import BACKENDS, Backend
from mdsample.backend.reference.backend import open_model
from mdsample.backend.setup import Setup
from mdsample.errors import ModelError
from mdsample.models.cache import Exact


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma.write(tmp_path_factory.mktemp("gemma") / "tiny", gemma.oracle())


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


def test_logits_are_those_of_transformers(backend: Backend, folder: Path) -> None:
    for expected, found in gemma.passes(backend, folder):
        assert np.abs(found - expected).max() < 1e-4


def test_several_blocks_and_fixed_text_inside_them(backend: Backend, folder: Path) -> None:
    model, (tokens, valid, opened) = backend.open(folder), gemma.rows([(3, 20)])
    opened[0, [5, 6, 13]] = False
    wanted = opened & (np.arange(tokens.shape[1]) < 19)
    memory = model.predict(gemma.query(tokens, valid, wanted)).memories
    found = backend.logits(model.trunk, tokens, valid, opened, opened, memory)
    whole, start = [], 3
    for first in (3, 11, 19):
        upto = min(first + 8, 23)
        plain = gemma.logits(gemma.oracle(), tokens[0, :upto], first, None)
        # what is fixed is certain; the last block was not predicted before
        certain = np.where(np.arange(gemma.V) == tokens[0, first:upto, None], 0, -1e30).astype(np.float32)
        before = np.where(opened[0, first:upto, None], plain, certain)
        logits = gemma.logits(gemma.oracle(), tokens[0, :upto], first, before if first < 19 else None)
        whole.append(logits[opened[0, first:upto]])
    assert start == 3 and np.abs(found - np.concatenate(whole)).max() < 1e-4


def test_the_exact_cache_changes_nothing(backend: Backend, folder: Path) -> None:
    plain = backend.open(folder)
    kept = backend.module("backend").open_model(folder, Setup(device="cpu", cache=Exact()))
    lengths, rng = [(3, 19), (9, 11)], np.random.default_rng(4)
    tokens, valid, opened = gemma.rows(lengths)
    number = (np.arange(tokens.shape[1]) - np.array(lengths)[:, :1]) // 8
    memories: Any = [(), ()]
    for step, block in enumerate([0, 0, 0, 1, 1, 2, 1]):
        wanted = opened & (number == block)
        # rows leave and change places
        order = rng.permutation(2)[: 2 if wanted.any(1).all() else 1]
        order = order if wanted[order].any() else np.flatnonzero(wanted.any(1))
        if step % 3 != 1:
            tokens = np.where(wanted, rng.integers(0, gemma.V, tokens.shape), tokens).astype(np.int32)
        asked = gemma.query(tokens, valid, wanted, step)
        seen = []
        for which, model in enumerate((plain, kept)):
            mine = attrs.evolve(
                asked,
                **{name: getattr(asked, name)[order] for name in ("tokens", "valid", "wanted")},
                fixed=(valid & ~opened)[order],
                restriction=attrs.evolve(asked.restriction, index=asked.restriction.index[order]),
                rows=asked.rows.take(order),
                memory=[memories[which][row] for row in order] if len(memories[which]) else (),
            )
            prediction = model.predict(mine)
            found = list(memories[which]) or [None, None]
            for line, row in enumerate(order):
                found[row] = prediction.memories[line]
            memories[which] = found
            seen.append(prediction.marginals)
        places = asked.wanted[order]
        assert np.abs(seen[0].entropy[places] - seen[1].entropy[places]).max() < 1e-4
        assert (seen[0].token[places] == seen[1].token[places]).all()


def test_what_runs_it_and_what_does_not(folder: Path, backend: Backend) -> None:
    model = backend.open(folder)
    assert (model.noise, model.conditioned, model.led, model.block) == ("uniform", True, True, gemma.BLOCK)
    with pytest.raises(ModelError, match="compile"):
        backend.module("backend").open_model(folder, Setup(device="cpu", compile=True))
    with pytest.raises(ModelError, match="use the torch or the mlx backend"):
        open_model(folder)
