"""Families: one file per `model_type`, each turns a published configuration into a `Trunk`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from mdsample.families import llada
from mdsample.families.trunk import Trunk
from mdsample.loading import ModelError

#: `model_type` in `config.json`, and who reads it
FAMILIES: dict[str, Callable[[Mapping[str, object]], Trunk]] = {
    "llada": llada.read,
}


def read_config(folder: Path) -> Trunk:
    """The description of the model in a folder; `ModelError` if `config.json` is missing, malformed or unsupported."""
    path = folder / "config.json"
    try:
        config: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no config.json, so it is not a model folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold a JSON object; found {type(config).__name__}")
    fields = cast("dict[str, object]", config)
    kind = fields.get("model_type")
    read = FAMILIES.get(kind) if isinstance(kind, str) else None
    if read is None:
        found = "no model_type" if kind is None else f"model_type {kind!r}"
        raise ModelError(f"{path} has {found}; supported: {', '.join(sorted(FAMILIES))}")
    return read(fields)
