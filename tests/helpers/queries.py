"""A query that tests of backends share: three ragged rows with blanks, padding and tokens that are ruled out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.models.denoiser import Query


def query(guide: Any) -> Query:
    tokens = np.array([[0, 9, 2, 2, 12, 2], [0, 2, 8, 0, 0, 0], [0, 5, 6, 2, 0, 0]], np.int32)
    valid = np.arange(6) < np.array([[6], [3], [4]])
    sets = (np.arange(320) < 300) & (np.arange(320) != 2)
    restriction = Restriction(sets[None], np.zeros(tokens.shape, np.int32))
    rows = Rows([(0, 0), (0, 1), (0, 2)], np.zeros(3, np.int32))
    return Query(tokens, valid, (tokens == 2) & valid, (tokens != 2) & valid, restriction, guide, rows)
