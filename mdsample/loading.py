"""From a model's name to a denoiser: embedded models, local folders, the Hugging Face hub; backends by entry point."""

from __future__ import annotations

import os
import platform
import re
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, cast

import attrs

from mdsample.cache import Cache, read_cache
from mdsample.denoiser import Denoiser
from mdsample.errors import ModelError

#: entry points `name = "module:function"`; the function is an `Opener`
GROUP = "mdsample.backends"
#: the order in which `auto` tries backends, on Apple silicon and elsewhere; one whose framework is missing is passed
#: over. Without Apple's GPU mlx is the slower one, and torch takes CUDA where there is one
PREFERENCE = {True: ("mlx", "torch", "reference"), False: ("torch", "reference")}
#: the template of a model that names none
TEMPLATE = "{prompt}{answer:128}"

#: the file in which a model folder may say something of itself
CARD = "mdsample.toml"

_EMBEDDED = Path(__file__).parent / "models"


class Opener(Protocol):
    """What a backend's entry point names."""

    def __call__(
        self, folder: Path, *, device: str | None, dtype: str | None, cache: Cache | None, compile: bool
    ) -> Denoiser:
        """Opens the model in a folder; `ModelError` for a device, dtype or cache that the backend does not have.

        `None` leaves device and dtype to the backend, and means no cache. `compile` is one, too, to a backend that
        compiles nothing.
        """
        ...


@attrs.frozen
class Card:
    """What a model folder says of itself in its optional `mdsample.toml`."""

    #: the folder's name, or the hub id it was downloaded as
    name: str
    #: text of the template that suits the model, in its chat template if it has one and names no template itself
    template: str = TEMPLATE
    #: one sentence for people
    description: str = ""
    #: text of the same template outside of the chat template
    plain: str = TEMPLATE


def load(
    name: str | Path,
    backend: str = "auto",
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache: str | Cache | None = None,
    compile: bool = False,
) -> Denoiser:
    """Opens a model on a backend.

    `name`: an embedded model (`embedded_models()`), a folder, or a hub id `organisation/model`, tried in this order;
    write `./name` for a folder that is called like an embedded model. `backend`: a name among `backends()`, or
    `auto`: the first of mlx (on Apple silicon), torch and reference that works here, for an embedded model the last.
    `revision`: branch, tag or commit on the hub.
    `device`: `cpu`, `cuda`, `cuda:1` or `mps`, with mlx `gpu` or `cpu`; by default the best that the backend has.
    `dtype`: `float32`, `bfloat16` or `float16`, the type of the weights; by default float32 on a CPU, elsewhere as they
    are stored.
    `cache`: `exact` for block-causal models, or, both approximate, `prefix` or `dual` (`mdsample.cache`); by default
    nothing is kept from one forward pass to the next. `compile`: let torch or MLX compile the layers, which takes some
    seconds for every new shape; results may round otherwise.
    The hub is asked for JSON, safetensors, `mdsample.toml` and `chat_template.jinja` files only; with
    `HF_HUB_OFFLINE=1` nothing is asked and its cache alone is used. Raises `ModelError`.
    """
    kept = read_cache(cache) if isinstance(cache, str) else cache
    opener: Opener = imported(choose_backend(name, backend, device=device, dtype=dtype, cache=kept, compile=compile))
    found = find(name, revision)
    if isinstance(found, str):
        # imported here: it takes longer to import than an embedded model takes to load
        from mdsample.hub import FACTS, WEIGHTS, download

        found = download(found, revision, (*FACTS, *WEIGHTS))
    return opener(found, device=device, dtype=dtype, cache=kept, compile=compile)


def choose_backend(
    name: str | Path,
    backend: str = "auto",
    *,
    device: str | None = None,
    dtype: str | None = None,
    cache: Cache | None = None,
    compile: bool = False,
) -> EntryPoint:
    """The backend that `load` opens a model on; `ModelError` if there is none of this name."""
    found = entries()
    plain = device is None and dtype is None and cache is None and not compile
    if backend == "auto" and plain and os.fspath(name) in embedded_models():
        backend = "reference"  # as fast on so small a model, and it starts a second sooner
    elif backend == "auto":
        apple = (platform.system(), platform.machine()) == ("Darwin", "arm64")
        backend = next((name for name in PREFERENCE[apple] if name in found and not missing(found[name])), backend)
    if backend not in found:
        raise ModelError(f"there is no backend {backend!r}; installed: {', '.join(sorted(found))}, or 'auto' to choose")
    return found[backend]


def find(name: str | Path, revision: str | None) -> Path | str:
    """The folder of an embedded or local model, or else the id of a model on the hub; nothing is fetched.

    Raises `ModelError` for a name that is none of these, and for a revision of a folder.
    """
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
        return text
    embedded = ", ".join(embedded_models()) or "none"
    raise ModelError(
        f"there is no model {text!r}: it is not an embedded model (there: {embedded}), not a folder, "
        "and not a hub id of the form organisation/model"
    )


def facts_folder(name: str | Path, revision: str | None) -> Path:
    """Where the files are that say what a model is; from the hub these alone are fetched. Raises `ModelError`."""
    found = find(name, revision)
    if isinstance(found, Path):
        return found
    from mdsample.hub import FACTS, download

    return download(found, revision, FACTS)


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
    return sorted(entries())


def read_card(folder: Path, template: str = TEMPLATE) -> Card:
    """The model folder's `mdsample.toml`, or the defaults if there is none; `ModelError` if it is malformed.

    `template`: the one of a folder that names none; in the checkpoint's chat template, if there is one. That it cannot
    be used is a `ModelError` as well.
    """
    path = folder / CARD
    said: dict[str, object] = {}
    if path.is_file():
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
    texts = cast("dict[str, str]", said)
    plain = texts.get("template", template)
    suits = plain if "template" in texts else _in_chat(folder, plain)
    return Card(_name(folder), suits, texts.get("description", ""), plain)


def _in_chat(folder: Path, template: str) -> str:
    # imported here: it imports this file
    from mdsample.chat import read_chat_template
    from mdsample.template import Template

    chat = read_chat_template(folder)
    return template if chat is None else str(chat.around(Template.parse(template)))


def _name(folder: Path) -> str:
    folder = folder.absolute()
    # the hub's cache keeps a model as models--organisation--model/snapshots/<commit>
    cached = re.fullmatch(r"models--(.+)--(.+)", folder.parent.parent.name)
    return f"{cached[1]}/{cached[2]}" if cached and folder.parent.name == "snapshots" else folder.name


def entries() -> dict[str, EntryPoint]:
    """Entry points of the installed backends by name."""
    # the reference backend is there even when the package runs from a source tree that was never installed
    own = EntryPoint("reference", "mdsample.reference.backend:open_model", GROUP)
    return {own.name: own} | {entry.name: entry for entry in entry_points(group=GROUP)}


def imported(entry: EntryPoint) -> Opener:
    """A backend's opener; `ModelError` if it cannot be imported."""
    try:
        return entry.load()
    except ImportError as error:
        raise ModelError(f"backend {entry.name!r} cannot be imported ({error}); {_remedy(entry)}") from error


def missing(entry: EntryPoint) -> str:
    """Why a backend cannot be imported, and what to do; empty if it can."""
    try:
        entry.load()
    except ImportError as error:
        return f"{error}; {_remedy(entry)}"
    return ""


def _remedy(entry: EntryPoint) -> str:
    # a backend's package may have an extra of the backend's name
    package = entry.dist
    extra = package is not None and entry.name in (package.metadata.get_all("Provides-Extra") or ())
    return f"pip install '{package.name}[{entry.name}]'" if package and extra else "install what it needs"
