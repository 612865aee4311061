"""Where a model runs and in which numbers: names become torch devices and types, checked before anything is read."""

from __future__ import annotations

import re
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mdsample.errors import ModelError
from mdsample.models.describe import dtype_name
from mdsample.models.weights.checkpoint import available_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | None) -> torch.device:
    """The device of this name (`cpu`, `cuda`, `cuda:1`, `mps`); `None`: cuda where there is one, else mps, else cpu.

    Raises `ModelError` for a name that is none of these and for a device that is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("mps" if mps else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ModelError(f"there is no device {name!r}; write cpu, cuda, cuda:1 (the second one) or mps")
    usable = {"cpu": True, "cuda": cuda, "mps": mps}[name.partition(":")[0]]
    if not usable:
        available = ", ".join(kind for kind, yes in (("cpu", True), ("cuda", cuda), ("mps", mps)) if yes)
        raise ModelError(f"device {name!r} is not available to torch {torch.__version__} here; available: {available}")
    if not name.startswith("cuda"):
        return torch.device(name)
    number = int(name.partition(":")[2] or torch.cuda.current_device())
    if number >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ModelError(f"there is no device {name!r}; cuda devices here go from cuda:0 to cuda:{last}")
    return torch.device("cuda", number)


def choose_dtype(name: str | None, device: torch.device, stored: str) -> torch.dtype:
    """The type of this name; `None`: float32 on the CPU, elsewhere the `stored` one, named as in files."""
    return DTYPES[dtype_name(name, stored, device.type == "cpu")]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on the device; `None` where nothing tells."""
    match device.type:
        case "cuda":
            return torch.cuda.mem_get_info(device)[0]
        case "mps":
            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        case _:
            return available_memory()


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """A small array on the device."""
    # CUDA takes its own copy of ordinary memory before it returns, so the host need not wait for what is under way;
    # elsewhere the array might be gone by then
    tensor: Tensor = torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
    return tensor.to(device, non_blocking=device.type == "cuda")
