"""Markov chains and hidden Markov models of any length: conditionals by the forward-backward algorithm.

K = hidden states. At a blank the evidence is 1 for every state, so a blank is summed over like a hidden state; messages
are rescaled at every position, so rows of many hundred positions neither under- nor overflow. Rabiner, "A tutorial on
hidden Markov models", Proc. IEEE 77 (1989), section III.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from mdsample.core.arrays import Doubles, Ints
from mdsample.exact.toy import Toy, distribution


@final
class HiddenMarkov(Toy):
    """A hidden Markov model: a chain of states that is never seen, and one token drawn from each."""

    def __init__(
        self,
        initial: ArrayLike,
        transition: ArrayLike,
        emission: ArrayLike,
        length: int,
        *,
        name: str = "hmm",
        slots: Mapping[str, int] | None = None,
        given: Mapping[int, int] | None = None,
    ) -> None:
        """`initial [K]`, `transition [K, K]` (from, to), `emission [K, V]`; rows are scaled to sum to 1."""
        self._initial = distribution(initial, f"{name}: initial", 1)
        self._transition = distribution(transition, f"{name}: transition", 2)
        self._emission = distribution(emission, f"{name}: emission", 2)
        states = len(self._initial)
        if self._transition.shape != (states, states) or len(self._emission) != states:
            raise ValueError(
                f"{name}: {states} states need a transition of shape {(states, states)} and {states} rows of emission; "
                f"got {self._transition.shape} and {self._emission.shape}"
            )
        super().__init__(name, length, self._emission.shape[1], slots=slots, given=given)
        #: probability of a token in each state, `[V + 1, K]`; the mask token says nothing
        self._evidence = np.concatenate([self._emission.T, np.ones((1, states))])

    def weights(self, tokens: Ints) -> Doubles:
        """Forward times backward message, each without the place's own evidence, times emission; `[B, L, V]`."""
        evidence = self._evidence[tokens]
        hidden = self._forward(evidence)[0]
        message = np.ones_like(hidden[:, 0])
        for place in range(self.length - 1, -1, -1):
            hidden[:, place] *= message
            message = _scaled((evidence[:, place] * message) @ self._transition.T)[0]
        return hidden @ self._emission

    def log_prob(self, tokens: Ints) -> Doubles:
        """Log-probability of what is known, `[B]` nats: the logarithms of the scales of the forward messages."""
        with np.errstate(divide="ignore"):
            return np.log(self._forward(self._evidence[tokens])[1]).sum(1)

    def _forward(self, evidence: Doubles) -> tuple[Doubles, Doubles]:
        """p(state | everything known before) `[B, L, K]`, and p(what is known here | the same) `[B, L]`."""
        message = np.broadcast_to(self._initial, evidence[:, 0].shape)
        messages, totals = np.empty_like(evidence), np.empty(evidence.shape[:2])
        for place in range(self.length):
            messages[:, place] = message
            message, totals[:, place] = _scaled(message * evidence[:, place])
            message = message @ self._transition
        return messages, totals


def _scaled(message: Doubles) -> tuple[Doubles, Doubles]:
    """The message `[B, K]` scaled to sum to 1 (or 0, where it is impossible), and its sum `[B]`."""
    total = message.sum(1)
    return message / np.where(total > 0, total, 1.0)[:, None], total


def MarkovChain(
    initial: ArrayLike,
    transition: ArrayLike,
    length: int,
    *,
    slots: Mapping[str, int] | None = None,
    given: Mapping[int, int] | None = None,
) -> HiddenMarkov:
    """A Markov chain over tokens: a hidden Markov model whose states show. `initial [V]`, `transition [V, V]`."""
    tokens = distribution(initial, "markov: initial", 1)
    return HiddenMarkov(tokens, transition, np.eye(len(tokens)), length, name="markov", slots=slots, given=given)
