"""A backend of one's own: models of one number, whose conditionals are a wave over the tokens of a row."""

from pathlib import Path
from typing import final

import numpy as np

from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.backend.setup import Setup
from mdsample.core.arrays import Doubles, Ints
from mdsample.errors import ModelError
from mdsample.models.denoiser import About, Denoiser, Query
from mdsample.testing import Symbols


@final
class Wave(Denoiser):
    """See `mdsample.models.denoiser.Denoiser`. The folder of a model holds one file, `sharpness.txt`."""

    def __init__(self, name: str, sharpness: float) -> None:
        """What it is, and how sharp its waves are."""
        symbols = Symbols(10)
        super().__init__(About(name, "wave", symbols, symbols.size, "{prompt}{reasoning:8}{answer:4}", 256))
        self.sharpness = sharpness

    def predict(self, query: Query) -> NumpyPrediction:
        """One forward pass, two under guidance."""
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
        """`[N, V]`; a position sees the sum of the row's tokens, padding left out, and where it is."""
        seen = (np.sin(1.0 + tokens) * query.valid).sum(1)
        rows, positions = np.nonzero(query.wanted)
        return self.sharpness * np.cos(np.outer(seen[rows] + positions, 1 + np.arange(self.vocab_size)))


def open_model(folder: Path, setup: Setup) -> Wave:
    """Opens a folder; it runs on the CPU in float64, and keeps and compiles nothing."""
    for option, value, only in (("device", setup.device, "cpu"), ("dtype", setup.dtype, "float64")):
        if value not in (None, only):
            raise ModelError(f"the wave backend has the {option} {only!r} only; got {value!r}")
    if setup.cache is not None or setup.compile or setup.adapter is not None:
        raise ModelError("the wave backend has no caches, compiles nothing and merges no adapter; leave them out")
    try:
        return Wave(folder.name, float((folder / "sharpness.txt").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} needs a file sharpness.txt with one number ({error})") from error
