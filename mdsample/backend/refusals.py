"""What every backend refuses, in the same words: asks that make no sense, and scores nothing can be drawn from."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs
from mdsample.errors import ModelError
from mdsample.models.denoiser import Noise
from mdsample.policy.draw import Draw, Greedy, Temperature


class Limits(Protocol):
    """What a model can be asked: a `Trunk`, for one."""

    @property
    def vocab_size(self) -> int:
        """Token ids go from 0 to one below this."""
        ...

    @property
    def max_length(self) -> int:
        """The longest row, tokens."""
        ...

    @property
    def block(self) -> int | None:
        """It sees a row in blocks of this many positions; `None`: all of it."""
        ...

    @property
    def led(self) -> bool:
        """Whether they are counted from a row's first open position."""
        ...

    @property
    def noise(self) -> Noise:
        """What it is shown in blanks."""
        ...

    @property
    def conditioned(self) -> bool:
        """Whether it also sees what it predicted the last time."""
        ...


def place(row: int | np.integer, position: int | np.integer) -> str:
    """How errors name a place."""
    return f"row {row}, position {position}"


def refuse_ask(limits: Limits, tokens: Ints, valid: Bools, wanted: Bools) -> None:
    """`ValueError` if a place in padding is wanted, a row is too long, or a token id does not exist; all `[B, L]`."""
    if (wanted & ~valid).any():
        row, position = np.argwhere(wanted & ~valid)[0]
        raise ValueError(f"{place(row, position)} is padding; the model says nothing about it")
    longest = int(np.nonzero(valid)[1].max(initial=-1)) + 1
    if longest > limits.max_length:
        raise ValueError(
            f"a row has {longest} tokens, but the model takes {limits.max_length} at most; shorten text or slots"
        )
    strange = valid & ((tokens < 0) | (tokens >= limits.vocab_size))
    if strange.any():
        row, position = np.argwhere(strange)[0]
        raise ValueError(
            f"{place(row, position)} holds token id {tokens[row, position]}, which does not exist; "
            f"ids go from 0 to {limits.vocab_size - 1}"
        )


def refuse_compiling(family: str, gemma: bool, compile: bool) -> None:
    """`ModelError` if a model with Gemma 4's layers is to be compiled."""
    if gemma and compile:
        raise ModelError(f"the layers of {family} are not compiled; leave compile out")


def refuse_unseen(number: Longs, rows: Ints, positions: Ints) -> None:
    """`ValueError` where `number [N]`, a place's number in the look, is negative: it was not wanted."""
    if (number < 0).any():
        bad = int(np.argmin(number))
        raise ValueError(f"{place(rows[bad], positions[bad])} was not looked at, so nothing is known of it")


def require_same_backend(prediction: object, before: object) -> None:
    """`ValueError` unless two predictions that are to be compared are of one kind."""
    if type(prediction) is not type(before):
        raise ValueError(
            f"a {type(prediction).__name__} cannot be compared with a {type(before).__name__}: predict on one backend"
        )


def refuse_uniforms(uniforms: Doubles) -> None:
    """`ValueError` unless all are in [0, 1)."""
    if not ((uniforms >= 0) & (uniforms < 1)).all():
        raise ValueError("uniforms must lie in [0, 1)")


def known_draw(how: Draw) -> Greedy | Temperature:
    """`ValueError` for a draw that backends do not know."""
    if not isinstance(how, Greedy | Temperature):
        raise ValueError(f"the draw {type(how).__name__} is not known here; known: greedy, temperature")
    return how


def refuse_unknown(tokens: Ints, size: int) -> None:
    """`ValueError` where one of `tokens [N]` is none of the `size` tokens that there are."""
    strange = (tokens < 0) | (tokens >= size)
    if strange.any():
        raise ValueError(f"there is no token {tokens[int(np.argmax(strange))]}; ids go from 0 to {size - 1}")


def refuse_empty(possible: Bools, rows: Ints, positions: Ints) -> None:
    """`ValueError` where `possible [N]` is false: no token may stand there."""
    if not possible.all():
        bad = int(np.argmin(possible))
        raise ValueError(
            f"no token may stand at {place(rows[bad], positions[bad])}: the constraints exclude one another there"
        )


def refuse_unusable(best: Floats | Doubles, rows: Ints, positions: Ints) -> None:
    """`ModelError` where `best [N]`, a place's highest score or its log-probability, is not finite."""
    finite = np.isfinite(best)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ModelError(
            f"the model gave {place(rows[bad], positions[bad])} no usable scores: "
            + (
                "every token that may stand there has probability zero; loosen the constraints"
                if np.isneginf(best[bad])
                else f"the highest is {best[bad]}; its weights are damaged or its numbers overflow"
            )
        )
