"""From a model's name to a denoiser: embedded models, local folders, the Hugging Face hub; backends by entry point."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

import attrs

from mdsample.denoiser import Denoiser

#: entry points `name = "module:function"`; the function is an `Opener`
GROUP = "mdsample.backends"
#: the order in which `auto` tries backends; one whose framework is missing is passed over
PREFERENCE = ("mlx", "torch", "reference")
#: the template of a model that names none
TEMPLATE = "{prompt}{answer:128}"

_EMBEDDED = Path(__file__).parent / "models"
_CARD = "mdsample.toml"


class ModelError(ValueError):
    """A model cannot be found, read or run; the message says what was wrong, what was found and what to do."""


class Opener(Protocol):
    """What a backend's entry point names."""

    def __call__(self, folder: Path, *, device: str | None, dtype: str | None) -> Denoiser:
        """Opens the model in a folder; `ModelError` for a device or a dtype that the backend does not have.

        `None` leaves the choice to the backend.
        """
        ...


@attrs.frozen
class Card:
    """What a model folder says of itself in its optional `mdsample.toml`."""

    #: the folder's name, or the hub id it was downloaded as
    name: str
    #: text of the template that suits the model
    template: str = TEMPLATE
    #: one sentence for people
    description: str = ""


def load(
    name: str | Path,
    backend: str = "auto",
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Denoiser:
    """Opens a model on a backend.

    `name`: an embedded model (`embedded_models()`), a folder, or a hub id `organisation/model`, tried in this order;
    write `./name` for a folder that is called like an embedded model. `backend`: a name among `backends()`, or
    `auto`: the first of mlx, torch and reference that works here, for an embedded model the last. `revision`: branch,
    tag or commit on the hub.
    `device`: `cpu`, `cuda`, `cuda:1` or `mps`; by default the best that the backend has. `dtype`: `float32`, `bfloat16`
    or `float16`, the type of the weights; by default float32 on a CPU, elsewhere as they are stored.
    The hub is asked for JSON, safetensors and `mdsample.toml` files only; with `HF_HUB_OFFLINE=1` nothing is asked and
    its cache alone is used. Raises `ModelError`.
    """
    if backend == "auto" and device is None and dtype is None and os.fspath(name) in embedded_models():
        backend = "reference"  # as fast on so small a model, and it starts a second sooner
    opener = _opener(backend)
    return opener(_folder(name, revision), device=device, dtype=dtype)


def embedded_models() -> list[str]:
    """Names of the models that come with the package, sorted."""
    if not _EMBEDDED.is_dir():
        return []
    return sorted(folder.name for folder in _EMBEDDED.iterdir() if (folder / "config.json").is_file())


def embedded_folder(name: str) -> Path:
    """Where an embedded model's files are."""
    return _EMBEDDED / name


def backends() -> list[str]:
    """Names of the installed backends, sorted; a backend's own framework may still be missing."""
    return sorted(_entry_points())


def read_card(folder: Path, template: str = TEMPLATE) -> Card:
    """The model folder's `mdsample.toml`, or the defaults if there is none; `ModelError` if it is malformed.

    `template`: the one of a folder that names none.
    """
    path = folder / _CARD
    name = _name(folder)
    if not path.is_file():
        return Card(name, template)
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid TOML: {error}") from error
    known = ("template", "description")
    for key, value in said.items():
        if key not in known:
            raise ModelError(f"{path}: unknown key {key!r}; known keys: {', '.join(known)}")
        if not isinstance(value, str):
            raise ModelError(f"{path}: {key} must be a text; got {value!r}")
    return Card(name, said.get("template", template), said.get("description", ""))


def _name(folder: Path) -> str:
    folder = folder.absolute()
    # the hub's cache keeps a model as models--organisation--model/snapshots/<commit>
    cached = re.fullmatch(r"models--(.+)--(.+)", folder.parent.parent.name)
    return f"{cached[1]}/{cached[2]}" if cached and folder.parent.name == "snapshots" else folder.name


def _entry_points() -> dict[str, EntryPoint]:
    # the reference backend is there even when the package runs from a source tree that was never installed
    own = EntryPoint("reference", "mdsample.reference.backend:open_model", GROUP)
    return {own.name: own} | {entry.name: entry for entry in entry_points(group=GROUP)}


def _opener(backend: str) -> Opener:
    found = _entry_points()
    if backend == "auto":
        for name in PREFERENCE:
            try:
                return found[name].load()
            except (KeyError, ImportError):
                continue
    if backend not in found:
        raise ModelError(f"there is no backend {backend!r}; installed: {', '.join(sorted(found))}, or 'auto' to choose")
    try:
        return found[backend].load()
    except ImportError as error:
        raise ModelError(f"backend {backend!r} cannot be imported ({error}); install what it needs") from error


def _folder(name: str | Path, revision: str | None) -> Path:
    text = os.fspath(name)
    folder = embedded_folder(text) if text in embedded_models() else Path(text).expanduser()
    if text and folder.is_dir():
        if revision is not None:
            raise ModelError(
                f"revision={revision!r} is for models on the hub, but {text!r} is a folder here; leave it out"
            )
        return folder
    # a hub id has exactly one slash and no part that begins with a dot
    if isinstance(name, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text):
        return _download(text, revision)
    embedded = ", ".join(embedded_models()) or "none"
    raise ModelError(
        f"there is no model {text!r}: it is not an embedded model (there: {embedded}), not a folder, "
        "and not a hub id of the form organisation/model"
    )


def _download(name: str, revision: str | None) -> Path:
    # imported here: it takes longer to import than an embedded model takes to load
    from huggingface_hub import (
        errors,
        snapshot_download,  # pyright: ignore[reportUnknownVariableType]
    )
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors", _CARD],
            ignore_patterns=["*/*"],
        )
    # whatever goes wrong between here and the hub (name, permission, network, disk), a person gets one sentence
    except Exception as error:
        lost = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        known: dict[type[Exception], str] = {
            errors.GatedRepoError: "it is gated: accept its terms on the hub, then log in with 'hf auth login'",
            errors.RepositoryNotFoundError: "there is no such model, or it is private: log in with 'hf auth login'",
            errors.RevisionNotFoundError: "the model is there, but not this revision",
            errors.LocalEntryNotFoundError: f"{lost}, and the model is not in the cache",
        }
        fallback = " ".join(str(error).split()) or type(error).__name__
        reason = next((said for kind, said in known.items() if isinstance(error, kind)), fallback)
        which = name if revision is None else f"{name} at revision {revision}"
        raise ModelError(
            f"{which} is not a folder here and could not be had from the Hugging Face hub: {reason}"
        ) from error
    return Path(found)
