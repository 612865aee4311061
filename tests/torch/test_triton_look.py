"""The Triton kernels against torch and float64, on a GPU where there is one, else by Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from interpreted import DEVICE

pytest.importorskip("triton", reason="Triton is not installed here; it comes with torch for CUDA")
from mdsample_torch import prediction as looking
from mdsample_torch import reduce_triton
from mdsample_torch import statistics as deciding
from mdsample_torch.prediction import TorchPrediction
from mdsample_torch.reduce import Reduced, reduce_
from mdsample_torch.statistics import statistics
from mdsample_torch.weights import BLOCK

from mdsample.core.restriction import Restriction
from mdsample.errors import ModelError
from mdsample.policy.guide import NoGuide

# the interpreter computes in NumPy, which warns of what a GPU does in silence
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")

PART = reduce_triton.COLUMNS
WIDE = 126_976
INF = math.inf
NAMES = ("log_probability", "second", "entropy", "log_total")


def kernel(scores: Any) -> Reduced:
    """The kernels' answer, back on the CPU."""
    there = torch.as_tensor(scores).to(DEVICE)
    before = there.clone()
    with np.errstate(all="ignore"):  # the interpreter computes in NumPy
        found = reduce_triton.reduce(there)
    assert torch.equal(there.nan_to_num(7.0), before.nan_to_num(7.0)), "scores are read only"
    return Reduced(found.token.cpu(), *(getattr(found, name).cpu() for name in NAMES))


def exact(scores: Any) -> dict[str, Any]:
    """The statistics in float64, of rows with a finite highest score."""
    scores = np.asarray(scores, np.float64)
    here = np.arange(len(scores))
    top = scores.argmax(1)
    below = scores - scores[here, top][:, None]
    below[here, top] = -INF
    weight = np.exp(below)
    log_total = np.log1p(weight.sum(1))
    mean = (weight * np.maximum(below, -1e300)).sum(1) / (1 + weight.sum(1))
    second = np.where(below.max(1) <= -1e30, -INF, below.max(1) - log_total)
    return {"log_probability": -log_total, "second": second, "entropy": log_total - mean, "log_total": log_total}


def check(scores: Any) -> None:
    """Everything that is promised of float32 rows whose highest scores are finite."""
    scores = np.asarray(scores, np.float32)
    found, expected = kernel(scores), exact(scores)
    ours = torch.from_numpy(scores.copy())
    theirs = reduce_(ours, torch.empty_like(ours))
    for name in NAMES:
        got = getattr(found, name).numpy()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected[name], rtol=1e-5, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(got, getattr(theirs, name).numpy(), rtol=1e-5, atol=2e-6, err_msg=name)
    # the rule, bit for bit: the first of those whose log-probability rounds to the highest
    best = -found.log_total.numpy()[:, None]
    with np.errstate(over="ignore"):
        rounded = (scores - scores.max(1, keepdims=True)) + best
    assert found.token.dtype == torch.int64
    assert found.token.tolist() == (rounded == best).argmax(1).tolist()
    # torch rounds its sum otherwise, so it may see equals where these are none and the other way round
    clear = ~((rounded != best) & (rounded > best - 1e-5)).any(1)
    assert (found.token == theirs.token).numpy()[clear].all()


@st.composite
def tables(draw: st.DrawFn) -> Any:
    """Scores `[n, W]` with ties, restrictions and huge gaps, in one part or several, the last of them full or not."""
    shape = draw(st.integers(1, 3)), draw(st.sampled_from([BLOCK, PART, PART + BLOCK, 3 * PART - BLOCK]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    kind = draw(st.sampled_from(["ties", "usual", "sharp", "extreme", "flat"]))
    scores = {
        "ties": lambda: rng.integers(-3, 4, shape),
        "usual": lambda: rng.normal(size=shape) * 2,
        "sharp": lambda: rng.normal(size=shape) * 60,
        "extreme": lambda: rng.choice([-3e38, -1e31, -1e4, 0, 1e-38, 90, 3e38], shape, p=[0.1] * 5 + [0.4, 0.1]),
        "flat": lambda: rng.normal(size=shape) * 1e-7,
    }[kind]().astype(np.float32)
    allowed = rng.random(shape) < draw(st.sampled_from([1, 0.6, 0.01, 0]))
    allowed[:, rng.integers(shape[1])] = True  # at least one, and in some rows no more: whole parts are forbidden
    return np.where(allowed, scores, np.float32(-INF))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tables())
def test_statistics_equal_torch_and_float64(scores: Any) -> None:
    check(scores)


def test_statistics_at_the_size_of_a_real_vocabulary() -> None:
    rng = np.random.default_rng(5)
    scores = (rng.normal(size=(3, WIDE)) * [[2], [0], [9]]).astype(np.float32)
    scores[:, 126_464:] = -INF
    scores[2, WIDE // 2 :] = -INF
    check(scores)


def test_equals_are_equals_even_in_other_parts() -> None:
    scores = np.full((3, 2 * PART), -50.0, np.float32)
    scores[0, [PART + 3, PART + 7]] = 4  # a tie inside a part
    scores[1, [10, PART + 1]] = 4  # and across parts
    scores[2, 20], scores[2, PART + 2] = 1e-9, 2e-9  # not equal, but their log-probabilities are
    found = kernel(scores)
    assert found.token.tolist() == [PART + 3, 10, 20]
    np.testing.assert_allclose(found.second, [-math.log(2)] * 3, rtol=1e-6)


def test_near_certainty_is_told_from_certainty() -> None:
    scores = np.full((3, 2 * PART), -INF, np.float32)
    scores[0, [0, 9, PART]] = 0, -25, -30  # in the highest's own part and in another
    scores[1, [PART + 7, 1]] = 3, -25
    scores[2, 5] = 5
    found = kernel(scores)
    for row, gaps in enumerate([(25, 30), (28,)]):
        rest = sum(math.exp(-gap) for gap in gaps)
        entropy = math.log1p(rest) + sum(gap * math.exp(-gap) for gap in gaps) / (1 + rest)
        assert float(found.log_probability[row]) == pytest.approx(-math.log1p(rest), rel=1e-5)
        assert float(found.entropy[row]) == pytest.approx(entropy, rel=1e-5)
    assert [float(getattr(found, name)[2]) for name in NAMES] == [0, -INF, 0, 0] and int(found.token[2]) == 5


@pytest.mark.parametrize("at", [3, PART + 3])
def test_a_highest_score_that_is_not_finite_is_reported(at: int) -> None:
    scores = np.zeros((5, 2 * PART), np.float32)
    scores[0, at] = math.nan
    scores[1, at] = INF
    scores[2, [at, 9]] = INF, math.nan
    scores[3] = -INF
    found = kernel(scores)
    np.testing.assert_array_equal(found.log_probability[:4], [math.nan, INF, math.nan, -INF])
    assert float(found.log_probability[4]) == pytest.approx(-math.log(2 * PART))
    assert ((found.token >= 0) & (found.token < 2 * PART)).all()


def test_bfloat16_is_widened_and_no_more() -> None:
    scores = torch.randn((2, PART + BLOCK), generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    narrow, wide = kernel(scores), kernel(scores.float())
    for name in ("token", *NAMES):
        assert torch.equal(getattr(narrow, name), getattr(wide, name)), name


def test_a_row_does_not_depend_on_its_company() -> None:
    scores = torch.randn((5, PART + BLOCK), generator=torch.Generator().manual_seed(2))
    together = kernel(scores)
    for row in range(len(scores)):
        alone = kernel(scores[row : row + 1])
        for name in ("token", *NAMES):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row]), name


def test_no_rows() -> None:
    assert kernel(np.zeros((0, BLOCK), np.float32)).entropy.shape == (0,)


def look_at(scores: Any) -> TorchPrediction:
    """A look at one row, the last tokens forbidden."""
    table = torch.as_tensor(scores).to(DEVICE)
    shape = 1, len(table)

    def logits(places: Any, out: Any) -> None:
        out[:] = table[places]

    allowed = np.arange(table.shape[1])[None] < table.shape[1] - 9
    restriction = Restriction(allowed, np.zeros(shape, np.int32))
    with np.errstate(all="ignore"):
        wanted = np.ones(shape, np.bool_)
        return TorchPrediction(
            logits, table.shape[1], table.shape[1], wanted, restriction, NoGuide(), torch.device(DEVICE)
        )


def test_a_look_takes_either(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(3).normal(size=(3, PART + BLOCK)).astype(np.float32)
    looks: list[Any] = []
    for way in (reduce_, lambda scores, scratch: reduce_triton.reduce(scores)):
        monkeypatch.setattr(looking, "statistics", way)
        looks.append(look_at(scores).marginals)
        with pytest.raises(ModelError, match="row 0, position 1 no usable scores: the highest is nan"):
            look_at(np.where(np.arange(3)[:, None] == 1, np.float32(math.nan), scores))
    np.testing.assert_array_equal(looks[0].token, looks[1].token)
    for name in ("log_probability", "second", "entropy"):
        np.testing.assert_allclose(getattr(looks[1], name), getattr(looks[0], name), rtol=1e-6, err_msg=name)


def test_where_the_kernels_do_not_work_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = deciding._kernel.__wrapped__
    device = torch.device(DEVICE)
    assert tried(device) is reduce_triton.reduce

    def broken(scores: Any) -> Reduced:
        raise RuntimeError("Failed to find C compiler.")

    with monkeypatch.context() as patch:
        patch.setattr(reduce_triton, "reduce", broken)
        assert tried(device) is None
    monkeypatch.setitem(sys.modules, "mdsample_torch.reduce_triton", None)
    assert tried(device) is None


def test_a_cpu_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "_kernel", None)
    assert statistics(torch.zeros((1, BLOCK)), torch.empty((1, BLOCK))).token.tolist() == [0]


COMPILE = """
from mdsample_torch import reduce_triton as kernels
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

types = {"scores": "*fp32", "parts": "*fp32", "tokens": "*i64", "numbers": "*fp32", "width": "i32", "count": "i32"}
values = {"COLUMNS": kernels.COLUMNS, "FLOOR": kernels.FLOOR, "LANES": 32}
for kernel in (kernels._part, kernels._whole):
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    constants = {(names.index(name),): value for name, value in values.items() if name in names}
    compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", 90, 32), kernels._OPTIONS)
"""


@pytest.mark.slow
@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU the other tests compile")
def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """The interpreter takes more of Python than the compiler does; no GPU is needed for the latter."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
