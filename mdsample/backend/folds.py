"""Sums and maxima over the tokens of a class, planned: columns side by side in blocks, blocks again, until one is left.

The classes of a language differ in size by a factor of 100,000. What is done within a block is the same for all blocks,
keeps its order on every device, and may be a log-sum-exp with a maximum of the block's own.
"""

from __future__ import annotations

from functools import lru_cache

import attrs
import numpy as np

from mdsample.core.arrays import Ints, Longs
from mdsample.core.language import Automaton

#: columns in a block of the first step, and of those after it: most classes are few blocks, and filling up costs
WIDTH, NARROW = 32, 8


@attrs.frozen(eq=False)
class Fold:
    """One step: columns are taken, `WIDTH` for each block, and a block leaves one column."""

    #: the columns, `[blocks · width]` int32
    take: Ints
    #: which of these stand for nothing, ascending
    empty: Ints


@attrs.frozen(eq=False)
class Plan:
    """The steps from a place's V tokens to one column for each class that has tokens."""

    folds: tuple[Fold, ...]
    #: these classes, ascending
    present: Ints
    #: which of these each block of the first step belongs to, and the first block of each
    owner: Ints
    begin: Ints


# a run has few languages, and a step asks for the same ones again
@lru_cache(maxsize=16)
def plan(language: Automaton) -> Plan:
    """What is to be done for a language. Class 0 is left out."""
    sizes = np.array([len(tokens) for tokens in language.members])
    present = np.flatnonzero(sizes)
    sizes = sizes[present]
    tokens = np.concatenate([language.members[symbol] for symbol in present] or [np.zeros(0, np.int64)])
    blocks = -(-sizes // WIDTH)
    owner = np.repeat(np.arange(len(present)), blocks).astype(np.int32)
    begin = (np.cumsum(blocks) - blocks).astype(np.int32)
    folds = [_fold(tokens, sizes, WIDTH)]
    while (blocks > 1).any():
        folds.append(_fold(np.arange(int(blocks.sum())), blocks, NARROW))
        blocks = -(-blocks // NARROW)
    return Plan(tuple(folds), present.astype(np.int32), owner, begin)


def _fold(columns: Longs, sizes: Longs, width: int) -> Fold:
    """Columns of groups of these sizes, one group after the other, each in whole blocks."""
    blocks = -(-sizes // width)
    take, full = np.zeros(int(blocks.sum()) * width, np.int32), np.zeros(int(blocks.sum()) * width, np.bool_)
    begin = (np.cumsum(blocks) - blocks) * width
    at = np.arange(len(columns)) + np.repeat(begin - (np.cumsum(sizes) - sizes), sizes)
    take[at], full[at] = columns, True
    return Fold(take, np.flatnonzero(~full).astype(np.int32))
