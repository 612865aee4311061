"""Weights from safetensors files to float32 arrays; nothing in a checkpoint is ever executed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from safetensors import SafetensorError, deserialize  # pyright: ignore[reportUnknownVariableType]

from mdsample.arrays import Floats
from mdsample.families.trunk import Trunk
from mdsample.loading import ModelError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class _Stored(TypedDict):
    dtype: str
    shape: list[int]
    data: bytearray


def read_tensors(folder: Path, trunk: Trunk) -> dict[str, Floats]:
    """Every tensor of the trunk by our own name, float32 (from F32, F16 or BF16).

    Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names. Raises `ModelError` naming
    every tensor that is missing, not known to the family, of another shape, of another type, or there twice.
    """
    ours = {published: name for name, published in trunk.names.items()}
    tensors: dict[str, Floats] = {}
    faults: list[str] = []
    for file in _files(folder):
        try:
            stored = cast("list[tuple[str, _Stored]]", deserialize(file.read_bytes()))
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged: {error}; fetch it again") from error
        for published, tensor in stored:
            name, found = ours.get(published), tuple(tensor["shape"])
            if name is None:
                faults.append(f"{published} {list(found)} is not a tensor of a {trunk.family} model")
            elif name in tensors:
                faults.append(f"{published} is there twice, the second time in {file.name}")
            elif found != trunk.shapes[name]:
                faults.append(f"{published} should be {list(trunk.shapes[name])}; found {list(found)}")
            elif tensor["dtype"] not in ("F32", "F16", "BF16"):
                faults.append(f"{published} is stored as {tensor['dtype']}; F32, F16 and BF16 are read")
            else:
                tensors[name] = _float32(tensor).reshape(found)
                continue
            # known but unfit: one complaint is enough, it is not missing as well
            ours.pop(published, None)
    faults += [
        f"{published} {list(trunk.shapes[name])} is missing" for published, name in ours.items() if name not in tensors
    ]
    if faults:
        more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise ModelError(f"the weights in {folder} do not fit config.json: {'; '.join(faults[:8])}{more}")
    return tensors


def _float32(tensor: _Stored) -> Floats:
    data = tensor["data"]
    if tensor["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f2" if tensor["dtype"] == "F16" else "<f4").astype(np.float32, copy=False)


def _files(folder: Path) -> list[Path]:
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    index = folder / _INDEX
    if not index.is_file():
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickles:
            raise ModelError(
                f"{folder} holds pickled weights only ({', '.join(pickles)}); unpickling runs code from the file, so "
                "they are not read: convert them to safetensors"
            )
        raise ModelError(f"{folder} holds neither {_SINGLE} nor {_INDEX}")
    try:
        places = cast("dict[str, str]", json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        names = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} must be JSON with an object weight_map: tensor name to file name") from error
    for name in names:
        # a name with a folder in it could lead anywhere on this machine
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)):
            raise ModelError(
                f"{index} names the shard {name!r}; a shard must be a plain name that ends in .safetensors"
            )
        if not (folder / name).is_file():
            raise ModelError(f"{index} names the shard {name!r}, which is not in the folder; fetch it again")
    return [folder / name for name in names]
