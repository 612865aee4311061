"""The Torch trunk's own: all experts in one product."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mdsample_torch import experts as mixture


@pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="torch before 2.10")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_experts_at_once_equals_one_by_one(dtype: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    x, gate_up, down = (torch.randn(shape, generator=rng).to(dtype) for shape in ((30, 16), (5, 16, 16), (5, 16, 8)))
    counts = torch.tensor([7, 0, 20, 0, 3])
    one, all_ = (
        f(x, counts, gate_up, down, torch.nn.functional.silu) for f in (mixture._one_by_one, mixture._all_at_once)
    )
    torch.testing.assert_close(all_, one, atol=1e-5 if dtype == torch.float32 else 0.5, rtol=1e-2)
