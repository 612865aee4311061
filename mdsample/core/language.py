"""Language: which rows of tokens a slot may hold, as a deterministic automaton over classes of tokens."""

from __future__ import annotations

import attrs

from mdsample.core.arrays import Bools, Ints


@attrs.frozen(eq=False)
class Automaton:
    """A language over tokens: a deterministic automaton over token classes. V = tokens, E = transitions, S = states."""

    #: class of every token id, [V]; class 0 can stand nowhere: special tokens, tokens that lead nowhere
    classes: Ints
    #: live transitions: from state, over class, to state; [E] each, sorted by (source, symbol); every state can be
    #: reached from state 0, and from every state one that accepts can be reached
    source: Ints
    symbol: Ints
    target: Ints
    #: [S]; state 0 is the start
    accepting: Bools
