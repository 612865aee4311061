"""Vocabulary: the bytes of all tokens as one tree, walked once to find which tokens an automaton cannot tell apart.

Two tokens are of one class if they lead from every state to the same one. A walk keeps one number for every such map
of states, so that its cost is the tokens' bytes, and the maps' size only as often as there are different maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.constraints.table import Table
from mdsample.core.arrays import Ints
from mdsample.core.tokens import Tokenizer, spelling
from mdsample.errors import PolicyError

#: entries of all maps together; each has two bytes
_ENTRIES = 1 << 26
_UNKNOWN = -1
_DEAD, _SAME = 0, 1


@attrs.frozen(eq=False)
class Vocabulary:
    """What the tokens of a tokenizer are written with. V = tokens, N = nodes of the tree."""

    #: of nodes, level by level: the number of the node above, and the byte; the root is node 0, of no level
    levels: tuple[tuple[Ints, Ints], ...]
    #: where each token ends in the tree, [V]; −1 for tokens that are no text
    ending: Ints
    #: whether the text of a slot loses one space that stands first
    strips: bool

    @staticmethod
    def of(texts: Sequence[bytes | None], strips: bool = False) -> Vocabulary:
        """From the bytes of every token; `None` or nothing for those that are no text."""
        # prefixes of sorted texts stand together
        order = sorted((token for token, text in enumerate(texts) if text), key=lambda token: texts[token] or b"")
        written = [texts[token] or b"" for token in order]
        lengths = np.array([len(text) for text in written], np.int64)
        begin = np.cumsum(lengths) - lengths
        data = np.frombuffer(b"".join(written), np.uint8)
        node = np.zeros(len(order), np.int32)
        levels: list[tuple[Ints, Ints]] = []
        nodes = 1
        active = np.arange(len(order))
        for depth in range(int(lengths.max(initial=0))):
            active = active[lengths[active] > depth]
            above, byte = node[active], data[begin[active] + depth].astype(np.int32)
            fresh = np.ones(len(active), np.bool_)
            fresh[1:] = (above[1:] != above[:-1]) | (byte[1:] != byte[:-1])
            node[active] = nodes + np.cumsum(fresh) - 1
            levels.append((above[fresh], byte[fresh]))
            nodes += int(fresh.sum())
        ending = np.full(len(texts), -1, np.int32)
        ending[order] = node
        return Vocabulary(tuple(levels), ending, strips)

    def over_tokens(self, table: Table) -> tuple[Table, Ints]:
        """An automaton over bytes as one over tokens, and the symbol of every token, `[V]`; symbol 0 leads nowhere.

        Raises `PolicyError`, a sentence without its subject, if it is too large.
        """
        narrow, symbol = table.merged()
        step = np.concatenate([narrow.next, np.full((1, narrow.next.shape[1]), narrow.size)]).astype(np.int16)
        states = np.arange(narrow.size, dtype=np.int16)
        maps: list[NDArray[np.int16]] = [np.full_like(states, narrow.size), states]
        numbers = {row.tobytes(): number for number, row in enumerate(maps)}
        after = np.full((2, step.shape[1]), _UNKNOWN, np.int32)
        reached = [np.full(1, _SAME, np.int32)]
        first = 0  # node of the level above
        for above, byte in self.levels:
            whence, over = reached[-1][above - first], symbol[byte]
            fresh = after[whence, over] == _UNKNOWN
            for pair in np.unique(whence[fresh] * len(after[0]) + over[fresh]).tolist():
                old, column = divmod(pair, len(after[0]))
                row = step[maps[old], column]
                number = numbers.setdefault(row.tobytes(), len(maps))
                if number == len(maps):
                    maps.append(row)
                    if len(maps) * narrow.size > _ENTRIES:
                        raise PolicyError(
                            f"has {narrow.size:,} states and tells more than {len(maps):,} kinds of tokens apart; "
                            "make it simpler, such as by fewer counted repetitions of different things"
                        )
                after[old, column] = number
            after = np.concatenate([after, np.full((len(maps) - len(after), step.shape[1]), _UNKNOWN, np.int32)])
            first += len(reached[-1])
            reached.append(after[whence, over])
        token = np.where(self.ending >= 0, np.concatenate(reached)[self.ending], _DEAD)
        # the maps that tokens end with; of dead ones there is always one
        used, inverse = np.unique(np.append(_DEAD, token), return_inverse=True)
        columns = np.stack([maps[int(number)] for number in used], 1).astype(np.int32)
        return Table(columns, narrow.accepting), inverse[1:].astype(np.int32)


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """That of a tokenizer, kept as long as the tokenizer is there."""
    found = _known.get(tokenizer)
    if found is None:
        spelled = spelling(tokenizer)
        found = _known[tokenizer] = Vocabulary.of(spelled.texts, spelled.strips)
    return found


_known: WeakKeyDictionary[Tokenizer, Vocabulary] = WeakKeyDictionary()
