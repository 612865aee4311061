"""Noise: what a model is shown where a row is blank."""

from __future__ import annotations

import numpy as np

from mdsample.core.arrays import Bools, Ints
from mdsample.core.uniforms import Uniforms
from mdsample.models.denoiser import Denoiser


def as_shown(tokens: Ints, blank: Bools, uniforms: Uniforms, denoiser: Denoiser) -> Ints:
    """`tokens [B, L]` as the model sees them: under uniform noise a random token wherever `blank`, new in every step.

    It is drawn evenly from all `vocab_size` tokens with the row's own uniforms, so it is the same on every backend.
    """
    if denoiser.noise == "mask" or not blank.any():
        return tokens
    return np.where(blank, (uniforms.at("noise") * denoiser.vocab_size).astype(np.int32), tokens)
