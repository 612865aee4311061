"""The Torch trunk against the NumPy one: every feature of `Trunk`, ragged rows, padding, types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from mdsample_torch import experts as mixture
from mdsample_torch.trunk import TorchTrunk
from mdsample_torch.weights import from_arrays
from trunks import MIXED, V, batches, descriptions, few, trunk, weights

from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.models.families.trunk import Trunk

CPU = torch.device("cpu")


def both(spec: Trunk, seed: int = 0) -> tuple[NumpyTrunk, TorchTrunk]:
    arrays = weights(spec, seed)
    return NumpyTrunk(spec, arrays), TorchTrunk(spec, from_arrays(spec, arrays, CPU, torch.float32))


def logits(model: TorchTrunk, tokens: Any, valid: Any, wanted: Any) -> NDArray[np.float32]:
    with torch.inference_mode():
        hidden = model.hidden(tokens, valid, wanted)
        out = torch.empty(len(hidden), model.width)
        model.logits(hidden, out)
    assert not out[:, model.spec.vocab_size :].any()
    return out[:, : model.spec.vocab_size].numpy()


@settings(max_examples=120, deadline=None)
@given(descriptions(), batches(), st.integers(0, 9))
def test_equals_the_reference(spec: Trunk, batch: tuple[Any, Any, Any], seed: int) -> None:
    reference, model = both(spec, seed)
    expected = reference.logits(*batch)
    found = logits(model, *batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max(initial=0)))


@few
@given(batches(), st.sampled_from([trunk(), MIXED]))
def test_padding_has_no_effect_at_all(batch: tuple[Any, Any, Any], spec: Trunk) -> None:
    _, model = both(spec)
    tokens, valid, wanted = batch
    other = np.where(valid, tokens, 5).astype(np.int32)
    assert np.array_equal(logits(model, tokens, valid, wanted), logits(model, other, valid, wanted))


@few
@given(batches(), st.sampled_from([trunk(), MIXED]), st.integers(0, 4))
def test_a_row_does_not_feel_its_neighbours(batch: tuple[Any, Any, Any], spec: Trunk, more: int) -> None:
    _, model = both(spec)
    tokens, valid, wanted = (np.pad(x, ((0, 0), (0, more))) for x in batch)
    together = logits(model, tokens, valid, wanted)
    alone = np.concatenate([logits(model, *(x[i : i + 1] for x in batch)) for i in range(len(tokens))])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * max(1, np.abs(alone).max(initial=0)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", [trunk(), MIXED], ids=["dense", "mixed"])
def test_half_the_bits_come_near(spec: Trunk, dtype: Any) -> None:
    # the same weights on both sides, or their rounding would be most of what is seen
    arrays = {k: torch.from_numpy(v).to(dtype).float().numpy() for k, v in weights(spec).items()}
    model = TorchTrunk(spec, from_arrays(spec, arrays, CPU, dtype))
    rng = np.random.default_rng(1)
    valid = np.arange(20) < np.array([[20], [11]])
    tokens = rng.integers(0, V, valid.shape).astype(np.int32)
    expected = NumpyTrunk(spec, arrays).logits(tokens, valid, valid)
    found = logits(model, tokens, valid, valid)
    error = np.abs(found - expected) / expected.std()
    assert found.dtype == np.float32 and np.median(error) < (0.03 if dtype == torch.bfloat16 else 0.004)


def test_norms_are_computed_in_float32() -> None:
    spec = trunk(layers=1)
    model = TorchTrunk(spec, from_arrays(spec, weights(spec), CPU, torch.float16))
    x = torch.full((1, 16), 300.0, dtype=torch.float16)  # its square is too large for float16
    assert torch.isfinite(model._rms_norm(x, model._norm)).all()


def test_nothing_wanted_and_rows_of_padding() -> None:
    _, model = both(MIXED)
    nothing = np.zeros((2, 3), np.bool_)
    tokens = np.zeros((2, 3), np.int32)
    assert logits(model, tokens, nothing, nothing).shape == (0, V)
    one = nothing.copy()
    one[1, 2] = True
    assert np.isfinite(logits(model, tokens, one, one)).all()


def test_refusals() -> None:
    _, model = both(trunk())
    yes = np.ones((1, 2), np.bool_)
    with pytest.raises(ValueError, match=r"row 0, position 1 holds token id 40.* 0 to 39"):
        model.hidden(np.array([[1, 40]], np.int32), yes, yes)
    with pytest.raises(ValueError, match="row 0, position 0 is padding"):
        model.hidden(np.array([[1, 2]], np.int32), ~yes, yes)
    with pytest.raises(ValueError, match="a row has 33 tokens, but the model takes 32"):
        model.hidden(np.ones((1, 33), np.int32), np.ones((1, 33), np.bool_), np.ones((1, 33), np.bool_))


@pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="torch before 2.10")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_experts_at_once_equals_one_by_one(dtype: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    x, gate_up, down = (torch.randn(shape, generator=rng).to(dtype) for shape in ((30, 16), (5, 16, 16), (5, 16, 8)))
    counts = torch.tensor([7, 0, 20, 0, 3])
    one, all_ = (f(x, counts, gate_up, down) for f in (mixture._one_by_one, mixture._all_at_once))
    torch.testing.assert_close(all_, one, atol=1e-5 if dtype == torch.float32 else 0.5, rtol=1e-2)
