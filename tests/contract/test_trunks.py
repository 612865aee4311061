"""A backend's trunk against the NumPy one: every feature of `Trunk`, ragged rows, padding, types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trunks import MIXED, V, batches, descriptions, few, near, trunk, two_rows, weights

from backends import Backend
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.models.families.trunk import Trunk


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(descriptions(), batches(), st.integers(0, 9))
def test_equals_the_reference(backend: Backend, spec: Trunk, batch: tuple[Any, Any, Any], seed: int) -> None:
    arrays = weights(spec, seed)
    near(backend.logits(backend.trunk(spec, arrays), *batch), NumpyTrunk(spec, arrays).logits(*batch))


@few
@given(batches(), st.sampled_from([trunk(), MIXED]))
def test_padding_has_no_effect_at_all(backend: Backend, batch: tuple[Any, Any, Any], spec: Trunk) -> None:
    model = backend.trunk(spec, weights(spec))
    tokens, valid, wanted = batch
    other = np.where(valid, tokens, 5).astype(np.int32)
    assert np.array_equal(backend.logits(model, tokens, valid, wanted), backend.logits(model, other, valid, wanted))


@pytest.mark.slow
@few
@given(batches(), st.sampled_from([trunk(), MIXED]), st.integers(0, 4))
def test_a_row_does_not_feel_its_neighbours(
    backend: Backend, batch: tuple[Any, Any, Any], spec: Trunk, more: int
) -> None:
    model = backend.trunk(spec, weights(spec))
    tokens, valid, wanted = (np.pad(x, ((0, 0), (0, more))) for x in batch)
    together = backend.logits(model, tokens, valid, wanted)
    near(together, np.concatenate([backend.logits(model, *(x[i : i + 1] for x in batch)) for i in range(len(tokens))]))


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.03), ("float16", 0.004)])
@pytest.mark.parametrize("spec", [trunk(), MIXED], ids=["dense", "mixed"])
def test_half_the_bits_come_near(backend: Backend, spec: Trunk, dtype: str, most: float) -> None:
    # the same weights on both sides, or their rounding would be most of what is seen
    arrays = {name: backend.rounded(array, dtype) for name, array in weights(spec).items()}
    batch = two_rows(spec)
    expected = NumpyTrunk(spec, arrays).logits(*batch)
    found = backend.logits(backend.trunk(spec, arrays, dtype), *batch)
    assert found.dtype == np.float32 and np.median(np.abs(found - expected) / expected.std()) < most


def test_norms_are_computed_in_float32(backend: Backend) -> None:
    spec = trunk(layers=1)
    # its square is too large for float16
    assert np.isfinite(backend.normed(backend.trunk(spec, weights(spec), "float16"), 300.0)).all()


def test_nothing_wanted_and_rows_of_padding(backend: Backend) -> None:
    model = backend.trunk(MIXED, weights(MIXED))
    nothing = np.zeros((2, 3), np.bool_)
    tokens = np.zeros((2, 3), np.int32)
    assert backend.logits(model, tokens, nothing, nothing).shape == (0, V)
    one = nothing.copy()
    one[1, 2] = True
    assert np.isfinite(backend.logits(model, tokens, one, one)).all()


def test_refusals(backend: Backend) -> None:
    spec = trunk()
    model = backend.trunk(spec, weights(spec))
    yes = np.ones((1, 2), np.bool_)
    with pytest.raises(ValueError, match=r"row 0, position 1 holds token id 40.* 0 to 39"):
        model.hidden(np.array([[1, 40]], np.int32), yes, yes)
    with pytest.raises(ValueError, match="row 0, position 0 is padding"):
        model.hidden(np.array([[1, 2]], np.int32), ~yes, yes)
    with pytest.raises(ValueError, match="a row has 33 tokens, but the model takes 32"):
        model.hidden(np.ones((1, 33), np.int32), np.ones((1, 33), np.bool_), np.ones((1, 33), np.bool_))
