"""What tests of looks share: tables of scores, restrictions, and a look at a table on every backend there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from installed import on

from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.restriction import Restriction
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import NoGuide

#: columns are padded to whole blocks of this many
BLOCK = 512
REAL = 126_464
few = settings(max_examples=40, deadline=None)


def restrict(shape: tuple[int, int], size: int, allowed: Any = None) -> Restriction:
    sets = np.ones((1, size), np.bool_) if allowed is None else np.asarray(allowed, np.bool_).reshape(-1, size)
    index = np.broadcast_to(np.arange(shape[1]) % len(sets), shape).astype(np.int32)
    return Restriction(sets, index)


def torch_look_at(scores: Any, allowed: Any = None, wanted: Any = None) -> Any:
    """A look at one row whose positions are the scores' rows."""
    import torch
    from mdsample_torch.prediction import TorchPrediction

    table = torch.from_numpy(np.asarray(scores, np.float32))
    size = table.shape[1]
    wanted = np.ones((1, len(table)), np.bool_) if wanted is None else wanted

    def logits(places: Any, out: Any) -> None:
        out[:, :size] = table[places]
        out[:, size:] = 1e9  # what lies beyond the vocabulary is never seen

    width = -(-size // BLOCK) * BLOCK
    return TorchPrediction(
        logits, size, width, wanted, restrict(wanted.shape, size, allowed), NoGuide(), torch.device("cpu")
    )


def mlx_look_at(scores: Any, allowed: Any = None, wanted: Any = None) -> Any:
    """The same on MLX."""
    import mlx.core as mx
    from mdsample_mlx.prediction import MlxPrediction

    table = np.asarray(scores, np.float32)
    size = table.shape[1]
    wanted = np.ones((1, len(table)), np.bool_) if wanted is None else wanted
    padded = mx.array(np.pad(table, ((0, 0), (0, -size % BLOCK)), constant_values=1e9))
    width = padded.shape[1]
    where = mx.Device(mx.cpu)
    return MlxPrediction(
        lambda places: padded[places], width, wanted, restrict(wanted.shape, size, allowed), NoGuide(), where
    )


LookAt = Callable[..., Prediction]


#: for tests that every backend must pass
looks = pytest.mark.parametrize("look_at", [on("torch", torch_look_at), on("mlx", mlx_look_at)])


def reference(scores: Any, allowed: Any = None) -> NumpyPrediction:
    scores = np.asarray(scores, np.float32).astype(np.float64)
    wanted = np.ones((1, len(scores)), np.bool_)
    return NumpyPrediction(scores, wanted, restrict(wanted.shape, scores.shape[1], allowed), NoGuide())


def places(n: int, position: int | None = None) -> tuple[Any, Any]:
    return np.zeros(n, np.int32), np.arange(n, dtype=np.int32) if position is None else np.full(n, position, np.int32)


@st.composite
def tables(draw: st.DrawFn) -> Any:
    """Scores `[n, V]` with ties, −inf and huge gaps, in one block of the vocabulary or in several."""
    n, size = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 1]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    kind = draw(st.sampled_from(["ties", "usual", "sharp"]))
    scores = rng.integers(-3, 4, (n, size)).astype(np.float32)
    if kind != "ties":
        scores = (rng.normal(size=(n, size)) * (2 if kind == "usual" else 60)).astype(np.float32)
    scores[rng.random(scores.shape) < draw(st.sampled_from([0, 0.4]))] = -math.inf
    scores[:, rng.integers(size)] = draw(st.sampled_from([0.0, 3.0]))
    return scores


@st.composite
def sets(draw: st.DrawFn, scores: Any) -> Any:
    """No restriction, one set, or several, each with some token that is possible."""
    kinds = draw(st.sampled_from([0, 1, 3]))
    if not kinds:
        return None
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    allowed = rng.random((kinds, scores.shape[1])) < draw(st.sampled_from([0.01, 0.5, 0.99]))
    allowed[:, int(np.argmax(np.isfinite(scores).all(0)))] = True
    return allowed


@st.composite
def questions(draw: st.DrawFn) -> tuple[Any, Any]:
    """A table, and a restriction for it."""
    scores = draw(tables())
    return scores, draw(sets(scores))


DRAWS = st.builds(
    Temperature,
    st.sampled_from([0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 1.0, 0.013, 0.37, 0.9]),
    top_k=st.sampled_from([0, 0, 1, 3, 400]),
    min_p=st.sampled_from([0.0, 0.0, 0.0123, 0.77]),
)


#: filters at the boundary of what they keep, and how many they keep of 1/2, 1/4, 1/4 (four: of four quarters)
BOUNDARIES = [
    (Temperature(top_p=0.5), 1),  # reached exactly: nothing more is needed
    (Temperature(top_p=0.51), 2),  # the token that crosses is kept
    (Temperature(top_p=0.75), 2),
    (Temperature(min_p=0.5), 3),  # exactly the share is enough
    (Temperature(min_p=0.51), 1),
    (Temperature(top_k=2), 2),  # of three equals at the boundary, the lowest ids
    (Temperature(top_k=2, top_p=0.6), 1),  # 2/3 after renormalisation
    (Temperature(top_k=9), 4),
]


def off_edges(law: Any, tokens: Any, uniforms: Any) -> Any:
    """How far each uniform lies outside its token's interval of the CDF; 0 is inside."""
    high = np.cumsum(law, 1) / law.sum(1, keepdims=True)
    here = np.arange(len(tokens))
    upper = high[here, tokens]
    return np.maximum(upper - law[here, tokens] - uniforms, uniforms - upper).clip(0)
