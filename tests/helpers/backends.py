"""What the contract of a backend is tried through: every backend's insides under the same names, NumPy in and out."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from installed import on
from looks import mlx_look_at, torch_look_at
from numpy.typing import NDArray

from mdsample.backend.fixed_point import share_of, split
from mdsample.backend.setup import Setup
from mdsample.models.denoiser import Denoiser
from mdsample.models.families.trunk import Trunk
from mdsample.policy.base import Policy
from mdsample.policy.complete import complete
from mdsample.policy.draw import Temperature

Floats = NDArray[np.float32]


class Backend(abc.ABC):
    """A backend on the CPU; what needs its framework is imported when it is used."""

    name: ClassVar[str]
    look_at: ClassVar[Callable[..., Any]]

    def module(self, name: str) -> Any:
        """A module of the backend's package."""
        return importlib.import_module(f"mdsample_{self.name}.{name}")

    def open(self, folder: Path, dtype: str | None = None) -> Any:
        """The checkpoint, opened."""
        return self.module("backend").open_model(folder, Setup(device="cpu", dtype=dtype))

    @abc.abstractmethod
    def forbid_reading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on, whoever opens a file of weights fails."""

    @abc.abstractmethod
    def trunk(self, spec: Trunk, arrays: Mapping[str, Floats], dtype: str = "float32") -> Any:
        """A trunk with these weights."""

    @abc.abstractmethod
    def padded_logits(
        self, trunk: Any, tokens: Any, valid: Any, wanted: Any, opened: Any = None, memory: Any = ()
    ) -> Floats:
        """Logits `[wanted, width]` of a trunk, with the columns that fill the last block."""

    @abc.abstractmethod
    def rounded(self, array: Floats, dtype: str) -> Floats:
        """Rounded to what a type can hold."""

    @abc.abstractmethod
    def normed(self, trunk: Any, value: float) -> Floats:
        """The final norm of a float16 state whose 16 members are all this value."""

    @abc.abstractmethod
    def share(self, share: float, total: int) -> int:
        """This share of a whole number."""

    @abc.abstractmethod
    def guided(self, conditional: Floats, unconditional: Floats, scale: float) -> Floats:
        """Scores under guidance."""

    @abc.abstractmethod
    def amounts(self, below: Floats, how: Temperature) -> NDArray[np.int64]:
        """The whole numbers that a draw is made by, from scores below their maximum."""

    @abc.abstractmethod
    def below(self, scores: Floats) -> Floats:
        """Scores below their maximum, as a look reduces them."""

    def logits(self, trunk: Any, tokens: Any, valid: Any, wanted: Any, opened: Any = None, memory: Any = ()) -> Floats:
        """Logits `[wanted, V]` of a trunk, whose other columns are 0."""
        out = self.padded_logits(trunk, tokens, valid, wanted, opened, memory)
        assert out.shape[1] == trunk.width and not out[:, trunk.spec.vocab_size :].any()
        return out[:, : trunk.spec.vocab_size]


class Torch(Backend):
    name = "torch"
    look_at = staticmethod(torch_look_at)

    def forbid_reading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self.module("weights"), "safe_open", _read)

    def trunk(self, spec: Trunk, arrays: Mapping[str, Floats], dtype: str = "float32") -> Any:
        import torch

        weights = self.module("weights").from_arrays(spec, arrays, torch.device("cpu"), getattr(torch, dtype))
        return self.module("trunk").TorchTrunk(spec, weights)

    def padded_logits(
        self, trunk: Any, tokens: Any, valid: Any, wanted: Any, opened: Any = None, memory: Any = ()
    ) -> Floats:
        import torch

        with torch.inference_mode():
            hidden = trunk.hidden(tokens, valid, wanted, opened=opened, memory=memory)
            out = torch.empty(len(hidden), trunk.width)
            trunk.logits(hidden, out)
        return out.numpy()

    def rounded(self, array: Floats, dtype: str) -> Floats:
        import torch

        return torch.from_numpy(array).to(getattr(torch, dtype)).float().numpy()

    def normed(self, trunk: Any, value: float) -> Floats:
        import torch

        return trunk._rms_norm(torch.full((1, 16), value, dtype=torch.float16), trunk._norm).float().numpy()

    def share(self, share: float, total: int) -> int:
        import torch

        return int(share_of(torch.from_numpy(split(np.array([share]))), torch.tensor([total]))[0])

    def guided(self, conditional: Floats, unconditional: Floats, scale: float) -> Floats:
        import torch

        scores = torch.from_numpy(conditional.copy())
        self.module("denoiser").guide_(scores, torch.from_numpy(unconditional.copy()), scale)
        return scores.numpy()

    def amounts(self, below: Floats, how: Temperature) -> NDArray[np.int64]:
        import torch

        scaled = torch.from_numpy(below)
        return self.module("draw")._amounts(scaled.exp(), scaled, how).numpy()

    def below(self, scores: Floats) -> Floats:
        import torch

        reduced = torch.from_numpy(scores.copy())
        self.module("reduce").reduce_(reduced, torch.empty_like(reduced))
        return reduced.numpy()


class Mlx(Backend):
    name = "mlx"
    look_at = staticmethod(mlx_look_at)

    def forbid_reading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import mlx.core as mx

        monkeypatch.setattr(mx, "load", _read)

    def trunk(self, spec: Trunk, arrays: Mapping[str, Floats], dtype: str = "float32") -> Any:
        return self.module("trunk").MlxTrunk(spec, self.module("weights").from_arrays(spec, arrays, dtype))

    def padded_logits(
        self, trunk: Any, tokens: Any, valid: Any, wanted: Any, opened: Any = None, memory: Any = ()
    ) -> Floats:
        return np.array(trunk.logits(trunk.hidden(tokens, valid, wanted, opened=opened, memory=memory)))

    def rounded(self, array: Floats, dtype: str) -> Floats:
        import mlx.core as mx

        return np.array(mx.array(array).astype(self.module("device").DTYPES[dtype]).astype(mx.float32))

    def normed(self, trunk: Any, value: float) -> Floats:
        import mlx.core as mx

        return np.array(trunk._rms_norm(mx.full((1, 16), value, dtype=mx.float16), trunk._norm).astype(mx.float32))

    def share(self, share: float, total: int) -> int:
        import mlx.core as mx

        return int(share_of(mx.array(split(np.array([share]))), mx.array(np.array([total])))[0].item())

    def guided(self, conditional: Floats, unconditional: Floats, scale: float) -> Floats:
        import mlx.core as mx

        return np.array(self.module("backend").guided(mx.array(conditional), mx.array(unconditional), scale))

    def amounts(self, below: Floats, how: Temperature) -> NDArray[np.int64]:
        import mlx.core as mx

        return np.array(self.module("draw")._amounts(mx.array(below), how))

    def below(self, scores: Floats) -> Floats:
        import mlx.core as mx

        return np.array(self.module("reduce").reduce(mx.array(scores)).below)


def _read(*_: Any, **__: Any) -> None:
    raise AssertionError("a file of weights was opened")


#: parameters of the fixture `backend`
BACKENDS = [on("torch", Torch()), on("mlx", Mlx())]


def fitting(policy: Policy, model: Denoiser) -> Policy:
    """The policy, with the model's own blocks where its window does not fit a model that sees a row in blocks."""
    window = complete(policy).window
    return policy.without("window") if model.block is not None and window.misfit(model.block) else policy
