"""A toy tokenizer and a toy model for tests: quick, deterministic, sensitive to every token of a row."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.core.arrays import Doubles, Ints, arange64
from mdsample.models.cache import Cache
from mdsample.models.denoiser import About, Denoiser, Noise, Query


@attrs.frozen
class Symbols:
    """A tokenizer of single characters: `a`, `b`, … ; the last two ids are the end token and the mask."""

    letters: int

    @property
    def size(self) -> int:
        """Letters, end, mask."""
        return self.letters + 2

    @property
    def mask_id(self) -> int:
        """The last id."""
        return self.letters + 1

    @property
    def end_id(self) -> int | None:
        """The last but one."""
        return self.letters

    @property
    def ends(self) -> frozenset[int]:
        """The end token alone."""
        return frozenset([self.letters])

    @property
    def turn_end(self) -> tuple[int, ...]:
        """Nothing: there are no chats."""
        return ()

    @property
    def start(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    @property
    def special(self) -> Sequence[str]:
        """`<end>` and `<mask>`."""
        return ("<end>", "<mask>")

    def special_id(self, text: str) -> int:
        """Id of a special token."""
        return {"<end>": self.letters, "<mask>": self.letters + 1}[text]

    def encode(self, text: str) -> list[int]:
        """One id per character."""
        ids = [ord(c) - ord("a") for c in text]
        if any(not 0 <= i < self.letters for i in ids):
            raise ValueError(f"only the {self.letters} letters from a can be written here; got {text!r}")
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Letters; special tokens are left out."""
        return "".join(chr(ord("a") + t) for t in tokens if t < self.letters)


class ScriptedDenoiser(Denoiser):
    """A toy whose conditionals depend on every valid token of a row and on nothing else; float64 inside.

    `sharpness` scales the scores: at 0 all tokens are equally likely. `spare` logits lie beyond the tokenizer's ids,
    as in checkpoints with a padded vocabulary, and are the most tempting of all.
    """

    def __init__(
        self,
        tokenizer: Symbols,
        seed: int = 0,
        sharpness: float = 3.0,
        spare: int = 1,
        max_length: int = 4096,
        *,
        cache: Cache | None = None,
        noise: Noise = "mask",
    ) -> None:
        """`cache`: what it claims to keep; it keeps nothing. `noise`: what it is shown in blanks."""
        self._sharpness = sharpness
        facts = "scripted", "toy", tokenizer, tokenizer.size + spare, "{text:8}", max_length, cache
        super().__init__(About(*facts, noise=noise))
        rng = np.random.default_rng(seed)
        self._table = rng.normal(size=(self.vocab_size, 31))
        self._out = rng.normal(size=(31, self.vocab_size))

    def predict(self, query: Query) -> NumpyPrediction:
        """One pass, two under guidance."""
        scores = [self._scores(tokens, query) for tokens in query.passes(self.tokenizer.mask_id)]
        return NumpyPrediction(
            guided(scores, query.guide),
            query.wanted,
            query.restriction,
            query.guide,
            tuning=query.tuning,
            credits=query.credits,
        )

    def _scores(self, tokens: Ints, query: Query) -> Doubles:
        # keyed by position, so that a row's scores do not know how far it was padded
        wave = np.cos(np.outer(arange64(tokens.shape[1]), arange64(31) + 1))
        context = np.einsum("blk,lk,bl->bk", self._table[tokens], wave, query.valid.astype(np.float64))
        rows, positions = np.nonzero(query.wanted)
        scores = self._sharpness * np.tanh(context[rows] * np.sin(1.0 + wave[positions])) @ self._out / 4
        scores[:, self.tokenizer.mask_id] += 5.0  # temptation: it must never be written
        scores[:, self.tokenizer.size :] += 9.0
        return scores
