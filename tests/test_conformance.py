"""The suites for models and backends: the ones of this repository pass them, and broken ones do not."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from checkpoints import write_checkpoint

from mdsample import testing
from mdsample.backend.setup import Setup
from mdsample.models.denoiser import Query
from mdsample.testing import ScriptedDenoiser, Symbols


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0])
def test_toys_pass(sharpness: float) -> None:
    testing.check_denoiser(ScriptedDenoiser(Symbols(6), 3, sharpness))


@pytest.mark.parametrize(
    "name", ["mdsample.backend.reference.backend", "mdsample_torch.backend", "mdsample_mlx.backend"]
)
def test_backends_pass(name: str, tmp_path: Path) -> None:
    framework = {"mdsample_torch": "torch", "mdsample_mlx": "mlx"}.get(name.split(".")[0])
    if framework and importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    testing.check_backend(importlib.import_module(name).open_model, write_checkpoint(tmp_path / "tiny"))


class Padded(ScriptedDenoiser):
    def predict(self, query: Query) -> Any:
        """Padding is seen."""
        return super().predict(attrs.evolve(query, valid=np.ones_like(query.valid)))


class Deaf(ScriptedDenoiser):
    def predict(self, query: Query) -> Any:
        """The restriction is not heard."""
        sets = np.ones_like(query.restriction.sets)
        return super().predict(attrs.evolve(query, restriction=attrs.evolve(query.restriction, sets=sets)))


class Argmax(ScriptedDenoiser):
    def predict(self, query: Query) -> Any:
        """Every draw is greedy."""
        prediction = super().predict(query)

        class Greedy:
            marginals = prediction.marginals
            log_probabilities = staticmethod(prediction.log_probabilities)
            divergence = staticmethod(prediction.divergence)

            def draw(self, rows: Any, positions: Any, uniforms: Any, how: Any) -> Any:
                return prediction.draw(rows, positions, 0 * uniforms, how)

        return Greedy()


class Apart(ScriptedDenoiser):
    def predict(self, query: Query) -> Any:
        """Each place of a slot is drawn as if the others were not."""
        prediction = super().predict(query)
        together = prediction.draw

        def draw(rows: Any, positions: Any, uniforms: Any, how: Any) -> Any:
            some = [together(rows[[n]], positions[[n]], uniforms[[n]], how) for n in range(len(rows))]
            return tuple(map(np.concatenate, zip(*some, strict=True)))

        prediction.draw = draw  # type: ignore[method-assign]
        return prediction


class Unweighed(ScriptedDenoiser):
    def predict(self, query: Query) -> Any:
        """How likely the rest of a slot's text is then does not count."""
        spans = tuple(attrs.evolve(span, weighed=False) for span in query.restriction.spans)
        return super().predict(attrs.evolve(query, restriction=attrs.evolve(query.restriction, spans=spans)))


class Tongueless(ScriptedDenoiser):
    def predict(self, query: Query) -> Any:
        """Languages are not heard."""
        return super().predict(attrs.evolve(query, restriction=attrs.evolve(query.restriction, spans=())))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Apart, "not drawn from the joint law"),
        (Unweighed, "under a language"),
        (Tongueless, "under a language"),
        (Padded, "a row says something else alone"),
        (Deaf, "a token that the restriction forbids"),
        (Argmax, "outside its token's interval"),
    ],
)
def test_broken_models_do_not(kind: type[ScriptedDenoiser], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_denoiser(kind(Symbols(6), 3, 1.0))


def test_an_opener_that_takes_any_device_does_not(tmp_path: Path) -> None:
    def open_model(folder: Path, setup: Setup) -> ScriptedDenoiser:
        return ScriptedDenoiser(Symbols(6))

    with pytest.raises(AssertionError, match="ModelError should have been raised"):
        testing.check_backend(open_model, tmp_path)
