"""Joints as tables, for tests that want many of them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from mdsample.core.arrays import Doubles


def random_table(seed: int) -> Doubles:
    """A joint of 2 to 4 positions of 2 to 4 tokens, from nearly independent to all but settled."""
    draw = np.random.default_rng(seed)
    shape = (int(draw.integers(2, 5)),) * int(draw.integers(2, 5))
    table = draw.dirichlet(np.full(math.prod(shape), draw.choice([0.03, 0.3, 2.0]))).reshape(shape)
    table[(0,) * len(shape)] += draw.choice([0.0, 0.5, 2.0, 8.0])
    return table / table.sum()


tables = st.integers(0, 10**6).map(random_table)
