"""DiffusionGemma against transformers: the same weights, with and without what was predicted before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import gemma
import numpy as np
import pytest
from numpy.typing import NDArray

from backends import BACKENDS, Backend
from mdsample.backend.reference.backend import open_model
from mdsample.backend.setup import Setup
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import ModelError
from mdsample.models.cache import Exact
from mdsample.models.denoiser import Query
from mdsample.policy.guide import NoGuide

#: tokens of a prompt and of what follows it; beyond the window of 6 positions, too
LENGTHS = [(1, 8), (3, 5), (5, 8), (6, 8), (7, 3), (20, 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma.write(tmp_path_factory.mktemp("gemma") / "tiny", gemma.oracle())


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


def rows(lengths: list[tuple[int, int]], seed: int = 0) -> tuple[NDArray[np.int32], Any, Any]:
    """Random tokens of ragged rows, where they are valid, and where they were open."""
    place, prompt = np.arange(max(map(sum, lengths)) + 2), np.array(lengths)[:, :1]
    valid = place < prompt + np.array(lengths)[:, 1:]
    tokens = np.random.default_rng(seed).integers(0, gemma.V, valid.shape).astype(np.int32)
    return tokens, valid, valid & (place >= prompt)


def query(tokens: Any, valid: Any, opened: Any, step: int = 0) -> Query:
    everything = Restriction(np.ones((1, gemma.V), np.bool_), np.zeros(tokens.shape, np.int32))
    names = Rows([(0, number) for number in range(len(tokens))], np.full(len(tokens), step, np.int32))
    return Query(tokens, valid, opened, valid & ~opened, everything, NoGuide(), names, remember=True)


def test_logits_are_those_of_transformers(backend: Backend, folder: Path) -> None:
    model, (tokens, valid, opened) = backend.open(folder), rows(LENGTHS)
    before = [None] * len(LENGTHS)
    memory: Any = ()
    # first as when a block begins, then conditioned on that, then on this
    for seed in range(3):
        tokens = np.where(opened, rows(LENGTHS, seed)[0], tokens)
        expected = [
            gemma.logits(gemma.oracle(), row[real], prompt, last)
            for row, real, (prompt, _), last in zip(tokens, valid, LENGTHS, before, strict=True)
        ]
        found = backend.logits(model.trunk, tokens, valid, opened, opened, memory)
        assert np.abs(found - np.concatenate(expected)).max() < 1e-4
        asked = attrs.evolve(query(tokens, valid, opened), memory=memory)
        memory, before = model.predict(asked).memories, expected


def test_several_blocks_and_fixed_text_inside_them(backend: Backend, folder: Path) -> None:
    model, (tokens, valid, opened) = backend.open(folder), rows([(3, 20)])
    opened[0, [5, 6, 13]] = False
    wanted = opened & (np.arange(tokens.shape[1]) < 19)
    memory = model.predict(query(tokens, valid, wanted)).memories
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
    tokens, valid, opened = rows(lengths)
    number = (np.arange(tokens.shape[1]) - np.array(lengths)[:, :1]) // 8
    memories: Any = [(), ()]
    for step, block in enumerate([0, 0, 0, 1, 1, 2, 1]):
        wanted = opened & (number == block)
        # rows leave and change places
        order = rng.permutation(2)[: 2 if wanted.any(1).all() else 1]
        order = order if wanted[order].any() else np.flatnonzero(wanted.any(1))
        if step % 3 != 1:
            tokens = np.where(wanted, rng.integers(0, gemma.V, tokens.shape), tokens).astype(np.int32)
        asked = query(tokens, valid, wanted, step)
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
