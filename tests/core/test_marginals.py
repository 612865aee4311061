"""Statistics of a position: shifted doubts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdsample.core.marginals import Marginals


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=5), st.floats(-3, 3))
def test_a_shift_scales_doubts_as_far_as_there_is_room(weights: list[float], shift: float) -> None:
    law = np.sort(np.array(weights) / sum(weights))[::-1]
    entropy = -(law * np.log(law)).sum()
    one = np.array([[0]], np.int32)
    numbers = (np.array([[x]], np.float32) for x in (np.log(law[0]), np.log(law[1]), entropy))
    shifted = Marginals(one, *numbers).shifted(np.array([[shift]]))
    # the most probable token stays so
    grow = min(np.exp(shift), 1 / (1 - law[0] + law[1]))
    np.testing.assert_allclose(1 - shifted.confidence, [[(1 - law[0]) * grow]], atol=1e-5)
    np.testing.assert_allclose(np.exp(shifted.second), [[law[1] * grow]], atol=1e-5)
    np.testing.assert_allclose(shifted.entropy, [[entropy * grow]], atol=1e-5)
    assert shifted.confidence >= np.exp(shifted.second) - 1e-6
