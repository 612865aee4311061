"""All trunks against the models of transformers; the NumPy one's rows, and its routing against loops."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from checkpoints import FAMILIES, family_weights, write_family
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CASES, batch, found, made
from trunks import few, near

from mdsample.backend.reference.experts import route
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.backend.reference.weights import Tensors
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Experts
from mdsample.models.weights.checkpoint import open_checkpoint


@pytest.mark.backend
@pytest.mark.parametrize("case", CASES)
def test_matches_transformers(case: str, tmp_path: Path) -> None:
    """Every backend: ragged rows, padded, and with scaled positions beyond what was trained on."""
    pytest.importorskip("transformers")
    spec, expected = made(case, tmp_path)
    for backend in ("reference", "torch", "mlx"):
        if backend == "reference" or find_spec(backend) is not None:
            near(found(backend, spec, tmp_path), expected)


def scores_by_hand(logits: list[float], correction: list[float], e: Experts) -> dict[int, float]:
    """Experts and weights of one token, in loops over Python numbers."""
    if e.score == "sigmoid":
        scores = [1 / (1 + np.exp(-x)) if x > -700 else 0.0 for x in logits]
    else:
        grown = [np.exp(x - max(logits)) for x in logits]
        scores = [x / sum(grown) for x in grown]
    wanted = [s + c for s, c in zip(scores, correction, strict=True)]
    size = e.count // e.groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(e.groups)]
    if e.groups > 1:
        groups.sort(key=lambda members: -sum(sorted((wanted[m] for m in members), reverse=True)[:2]))
    open_to_all = sorted((m for members in groups[: e.chosen_groups] for m in members), key=lambda m: -wanted[m])
    chosen = open_to_all[: e.chosen]
    total = sum(scores[m] for m in chosen) if e.normalized else 1.0
    return {m: scores[m] / total * e.scale for m in chosen}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_routing_matches_the_rules(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2, 4]))
    chosen_groups = data.draw(st.integers(1, groups))
    size = data.draw(st.integers(2, 4))
    e = Experts(
        count=groups * size,
        chosen=data.draw(st.integers(1, size * chosen_groups)),
        size=1,
        score=data.draw(st.sampled_from(["softmax", "sigmoid"])),
        normalized=data.draw(st.booleans()),
        scale=data.draw(st.sampled_from([1.0, 2.5])),
        groups=groups,
        chosen_groups=chosen_groups,
        corrected=True,
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = (rng.normal(size=(3, e.count)) * 3).astype(np.float32)
    correction = rng.normal(size=e.count).astype(np.float32)  # negative ones must not open a closed group
    chosen, weights = route(logits, correction, e)
    assert weights.dtype == np.float32
    for row in range(3):
        by_hand = scores_by_hand(logits[row].astype(float).tolist(), correction.astype(float).tolist(), e)
        assert set(chosen[row].tolist()) == set(by_hand)
        for expert, weight in zip(chosen[row].tolist(), weights[row].tolist(), strict=True):
            assert weight == pytest.approx(by_hand[expert], rel=1e-4, abs=1e-7)


def test_extreme_router_scores_stay_finite() -> None:
    for score in ("softmax", "sigmoid"):
        e = Experts(count=3, chosen=2, size=1, score=score, normalized=True)
        logits = np.array([[-3e38, -1e4, -900], [3e38, 0, -3e38], [0, 0, 0]], np.float32)
        with np.errstate(over="ignore"):
            chosen, weights = route(logits, None, e)
        assert np.isfinite(weights).all() and chosen[2].tolist() == [0, 1]


def trunk_of(family: str, folder: Path, **changes: Any) -> NumpyTrunk:
    spec = read_config(write_family(folder, family))
    tensors = dict(Tensors(open_checkpoint(folder, spec)))
    return NumpyTrunk(attrs.evolve(spec, **changes), tensors)


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NumpyTrunk]:
    return {family: trunk_of(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


rows_of_tokens = st.lists(st.lists(st.integers(0, 319), min_size=1, max_size=11), min_size=1, max_size=3)


@few
@given(rows_of_tokens, st.integers(0, 3), st.randoms(use_true_random=False))
@pytest.mark.parametrize("family", ["dream", "sdar", "llada2_moe", "llada_moe"])
def test_rows_parts_and_padding(
    family: str, trunks: dict[str, NumpyTrunk], rows: list[list[int]], more: int, random: Any
) -> None:
    """A row is the same alone, beside others, padded, and where only some of it is wanted."""
    trunk = trunks[family]
    tokens, valid = batch(rows, max(map(len, rows)) + more)
    tokens[~valid] = random.randrange(320)
    wanted = valid & np.array([[random.random() < 0.5 for _ in row] for row in valid])
    found = trunk.logits(tokens, valid, wanted)
    alone = [trunk.logits(*(batch([row], len(row))), np.ones((1, len(row)), np.bool_)) for row in rows]
    expected = np.concatenate(alone)[wanted[valid]]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(np.concatenate(alone)).max()))


@few
@given(rows_of_tokens, st.randoms(use_true_random=False))
def test_shifted_is_the_state_one_place_before(
    trunks: dict[str, NumpyTrunk], rows: list[list[int]], random: Any
) -> None:
    shifted = trunks["dream"]
    plain = NumpyTrunk.__new__(NumpyTrunk)
    plain.__dict__.update(shifted.__dict__, spec=attrs.evolve(shifted.spec, shifted=False))
    tokens, valid = batch(rows, max(map(len, rows)) + 1)
    wanted = valid & np.array([[random.random() < 0.5 for _ in row] for row in valid])
    states = np.zeros((*valid.shape, plain.spec.d_model), np.float32)
    states[valid] = plain.hidden(tokens, valid, valid)
    before = states[:, np.maximum(np.arange(valid.shape[1]) - 1, 0)]
    found = shifted.hidden(tokens, valid, wanted)
    assert found.shape == before[wanted].shape
    np.testing.assert_allclose(found, before[wanted], atol=1e-5 * max(1, np.abs(states).max()))


@few
@given(st.lists(st.integers(0, 319), min_size=1, max_size=14), st.integers(0, 13), st.integers(0, 319))
def test_later_blocks_are_not_seen(trunks: dict[str, NumpyTrunk], row: list[int], place: int, token: int) -> None:
    trunk, place = trunks["sdar"], place % len(row)
    tokens, valid = batch([row], len(row))
    changed = tokens.copy()
    changed[0, place] = token
    start = place // 4 * 4
    before, after = (trunk.hidden(t, valid, valid) for t in (tokens, changed))
    np.testing.assert_allclose(before[:start], after[:start], atol=1e-5)
    if token != row[place]:
        assert np.abs(before[start:] - after[start:]).max(1).min() > 0, "the whole block and all after it see it"


@few
@given(
    st.lists(st.integers(3, 319), min_size=1, max_size=14),
    *(st.integers(0, 13),) * 2,
    st.integers(3, 319),
    st.booleans(),
)
def test_a_led_row_is_seen_as_it_is_filled(
    trunks: dict[str, NumpyTrunk], row: list[int], prompt: int, place: int, token: int, empty: bool
) -> None:
    """What a token that is changed changes: all of its own block, whatever of it stands, and all after it."""
    trunk, prompt, place = trunks["nemotron"], prompt % len(row), place % len(row)
    tokens, valid = batch([row], len(row))
    opened = valid & (np.arange(len(row)) >= prompt)
    start = max(prompt, place - (place - prompt) % 4)
    if empty:  # of the block only what is changed stands
        tokens[0, start : start + 4] = 2
    changed = tokens.copy()
    changed[0, place] = token
    before, after = (trunk.hidden(t, valid, opened, opened) for t in (tokens, changed))
    np.testing.assert_allclose(before[: start - prompt], after[: start - prompt], atol=1e-5)
    if token != tokens[0, place] and place >= prompt:
        seen = np.abs(before[start - prompt :] - after[start - prompt :]).max(1) > 0
        # a block whose first place alone stands is read there
        assert seen[1:].all() and (seen[0] or (place == start and set(tokens[0, start + 1 : start + 4]) <= {2}))


def test_a_long_row_costs_no_table(tmp_path: Path) -> None:
    """Published lengths (131,072) cost nothing until a row is that long."""
    spec = read_config(write_family(tmp_path, "dream", config={"max_position_embeddings": 2**40}))
    trunk = NumpyTrunk(spec, Tensors(open_checkpoint(tmp_path, spec)))
    assert np.isfinite(trunk.hidden(*batch([[1, 2]], 2), np.ones((1, 2), np.bool_))).all()
    assert set(family_weights("dream")) >= {"model.layers.0.self_attn.q_proj.bias"}
