"""Where MLX computes and in which numbers: names become devices and types, checked before anything is read."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mdsample.errors import ModelError
from mdsample.models.describe import dtype_name
from mdsample.models.weights.checkpoint import available_memory

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def choose_device(name: str | None) -> mx.Device:
    """The device of this name, `cpu` or `gpu`; `None`: the GPU where there is one. Raises `ModelError`."""
    gpu = mx.is_available(mx.gpu)
    if name is None:
        return mx.Device(mx.gpu if gpu else mx.cpu)
    if name not in ("cpu", "gpu"):
        raise ModelError(f"the mlx backend has no device {name!r}; write gpu or cpu")
    if name == "gpu" and not gpu:
        raise ModelError(f"device 'gpu' is not available to mlx {version('mlx')} here; available: cpu")
    return mx.Device(mx.gpu if name == "gpu" else mx.cpu)


def is_gpu(device: mx.Device) -> bool:
    """Whether it is one."""
    return device.type == mx.DeviceType.gpu


def choose_dtype(name: str | None, device: mx.Device, stored: str) -> str:
    """The type of this name; `None`: float32 on the CPU, elsewhere the `stored` one, named as in files."""
    return dtype_name(name, stored, not is_gpu(device))


def free_memory(device: mx.Device) -> int | None:
    """Bytes that can still be had; on a GPU what the system recommends to use there, less what is in use."""
    return recommended(device) - mx.get_active_memory() if is_gpu(device) else available_memory()


def recommended(device: mx.Device) -> int:
    """Bytes of memory that the system lets a GPU have without paging; Apple GPUs share it with all else."""
    info: dict[str, Any] = mx.device_info(device)
    return int(info.get("max_recommended_working_set_size") or info["memory_size"])


def wire(device: mx.Device) -> None:
    """Keeps what MLX allocates from being paged out, up to what the system recommends; macOS 15 and later obey."""
    if is_gpu(device) and mx.metal.is_available():
        mx.set_wired_limit(recommended(device))


def upload(array: NDArray[Any]) -> mx.array:
    """An array on the device, in its own type."""
    untyped: Any = array
    return mx.array(untyped)


def upload_indices(array: NDArray[Any]) -> mx.array:
    """As `upload`, with whole numbers as int32, by which MLX indexes."""
    return upload(array.astype(np.int32) if array.dtype == np.int64 else array)


def evaluate(*arrays: mx.array) -> None:
    """Computes what is still to be computed."""
    mx.eval(*arrays)  # pyright: ignore[reportUnknownMemberType]


def refuse_uncompilable(device: mx.Device) -> None:
    """`ModelError` if MLX cannot compile here: on a CPU it asks a C++ compiler to."""

    def two(x: mx.array) -> mx.array:
        return mx.exp(x) * mx.exp(-x)

    try:
        with mx.stream(device):
            evaluate(mx.compile(two)(mx.ones(3)))
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise ModelError(f"compile=True does not work here: {why}; install a C++ compiler, or leave it out") from error
