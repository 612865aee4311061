"""The Torch backend: a model folder as a denoiser on Torch."""

from __future__ import annotations

from pathlib import Path

import torch

from mdsample.backend.refusals import refuse_compiling
from mdsample.backend.setup import DEFAULT, Choice, Device, Setup
from mdsample.models.describe import describe
from mdsample.models.families import family_of, read_fields
from mdsample.models.files import Files
from mdsample_torch.denoiser import TorchDenoiser
from mdsample_torch.device import choose_device, choose_dtype, free_memory
from mdsample_torch.trunk import TorchTrunk
from mdsample_torch.weights import read_weights


def open_model(folder: Path, setup: Setup = DEFAULT) -> TorchDenoiser:
    """Reads the model in a folder: `config.json`, `tokenizer.json`, safetensors; raises `ModelError`.

    A `model_type` that is none of `mdsample.models.families` is left to transformers, see `mdsample_torch.masked_lm`.

    Without a device it takes the best there is; without a dtype float32 on a CPU, elsewhere as stored. What `compile`
    does: see `mdsample_torch.compiled`.
    """
    where = choose_device(setup.device)
    if family_of(read_fields(folder)) is None:
        # imported here: it builds on this file
        from mdsample_torch.masked_lm import open_masked_lm

        return open_masked_lm(folder, where, setup)
    model = describe(folder, setup.cache, setup.adapter)
    refuse_compiling(model.trunk.family, model.trunk.gemma is not None, setup.compile)
    weights = read_weights(model.checkpoint, where, choose_dtype(setup.dtype, where, model.stored))
    trunk = TorchTrunk(model.trunk, weights, setup.compile)
    return TorchDenoiser(model.card.name, trunk, model.tokenizer, model.card.template, setup.cache, model.policy)


def devices() -> tuple[Device, ...]:
    """The devices that torch has here, the default one first; see `mdsample.backend.setup`."""
    available = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    available += [torch.device("mps")] * torch.backends.mps.is_available()
    available.append(torch.device("cpu"))
    first = choose_device(None)
    return tuple(_device(device) for device in sorted(available, key=lambda device: device != first))


def choose(stored: str, setup: Setup) -> Choice:
    """Device and dtype as `open_model` takes them; see `mdsample.backend.setup`."""
    where = choose_device(setup.device)
    return Choice(_device(where), str(choose_dtype(setup.dtype, where, stored)).removeprefix("torch."))


def check_other(files: Files) -> None:
    """Refuses what is no masked language model of transformers; see `mdsample.backend.setup`."""
    from mdsample_torch.masked_lm import check

    check(files)


def _device(device: torch.device) -> Device:
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return Device(str(device), free_memory(device), about)
