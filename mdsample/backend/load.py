"""Load: open a model on one of the installed backends, which are found by entry point."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from mdsample.backend.setup import DEFAULT, Choice, Chooser, Setup, TrunkChecker
from mdsample.errors import ModelError
from mdsample.models.cache import Cache, read_cache
from mdsample.models.denoiser import Denoiser
from mdsample.models.fetch import fetch, fetch_adapter
from mdsample.models.find import embedded_models, name_text
from mdsample.models.inspect import Facts, adapter_files
from mdsample.models.weights.adapter import identity

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: entry points `name = "module:function"`; the function is an `Opener`
GROUP = "mdsample.backends"


#: the order in which `auto` tries backends, on Apple silicon and elsewhere; one whose framework is missing is passed
#: over. Without Apple's GPU mlx is the slower one, and torch takes CUDA where there is one
PREFERENCE = {True: ("mlx", "torch", "reference"), False: ("torch", "reference")}


class Opener(Protocol):
    """What a backend's entry point names."""

    def __call__(self, folder: Path, setup: Setup) -> Denoiser:
        """Opens the model in a folder; `ModelError` for a device, dtype or cache that the backend does not have.

        `None` leaves device and dtype to the backend, and means no cache. `compile` is one, too, to a backend that
        compiles nothing.
        """
        ...


def load(
    name: str | Path,
    backend: str = "auto",
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache: str | Cache | None = None,
    compile: bool = False,
    adapter: str | Path | None = None,
) -> Denoiser:
    """Opens a model on a backend.

    `name`: an embedded model (`embedded_models()`), a folder, or a hub id `organisation/model`, tried in this order;
    write `./name` for a folder that is called like an embedded model. `backend`: a name among `backends()`, or
    `auto`: the first of mlx (on Apple silicon), torch and reference that works here, for an embedded model the last.
    `revision`: branch, tag or commit on the hub.
    `device`: `cpu`, `cuda`, `cuda:1` or `mps`, with mlx `gpu` or `cpu`; by default the best that the backend has.
    `dtype`: `float32`, `bfloat16` or `float16`, the type of the weights; by default float32 on a CPU, elsewhere as they
    are stored.
    `cache`: `exact` for block-causal models, or, both approximate, `prefix` or `dual` (`mdsample.models.cache`);
    by default nothing is kept from one forward pass to the next. `compile`: let torch or MLX compile the layers, which
    takes some seconds for every new shape; results may round otherwise.
    `adapter`: a low-rank adapter in peft's layout, a folder or a hub id (with a revision: `organisation/name@tag`),
    merged into the weights as they are read; the model's name tells which (`mdsample.models.weights.adapter`).
    Of a model on the hub the facts come first (`mdsample.models.fetch`): what cannot be opened here is refused before a
    weight is fetched. With `HF_HUB_OFFLINE=1` nothing is asked and the hub's cache alone is used. Raises `ModelError`.
    """
    kept = read_cache(cache) if isinstance(cache, str) else cache
    setup = Setup(device=device, dtype=dtype, cache=kept, compile=compile)
    entry = choose_backend(name, backend, setup)
    opener = imported(entry)
    adapted = None if adapter is None else adapter_files(adapter)

    def check(facts: Facts) -> None:
        placed = place(facts, entry, setup)
        if placed is not None and (fault := shortage(*placed)):
            raise ModelError(f"{facts.name}: {fault}")

    folder = fetch(name, revision, check, beside(entry, "check_other"), adapted)
    if adapted is None:
        return opener(folder, setup)
    here = fetch_adapter(adapted)
    model = opener(folder, attrs.evolve(setup, adapter=here))
    if identity(here) not in model.name:
        raise ModelError(f"the backend {entry.name!r} merges no adapters; take another one, or leave the adapter out")
    return model


def choose_backend(name: str | Path, backend: str = "auto", setup: Setup = DEFAULT) -> EntryPoint:
    """The backend that `load` opens a model on; `ModelError` if there is none of this name."""
    known = entries()
    if backend == "auto" and setup == DEFAULT and name_text(name) in embedded_models():
        backend = "reference"  # as fast on so small a model, and it starts a second sooner
    elif backend == "auto":
        apple = (platform.system(), platform.machine()) == ("Darwin", "arm64")
        backend = next((name for name in PREFERENCE[apple] if name in known and not missing(known[name])), backend)
    if backend not in known:
        works = [name for name, entry in sorted(known.items()) if not missing(entry)]
        raise ModelError(f"there is no backend {backend!r}; installed: {', '.join(works)}, or 'auto' to choose")
    return known[backend]


def backends() -> list[str]:
    """Names of the installed backends, sorted; a backend's own framework may still be missing."""
    return sorted(entries())


def entries() -> dict[str, EntryPoint]:
    """Entry points of the installed backends by name."""
    # imported here: it takes as long to import as half of the library
    from importlib.metadata import EntryPoint, entry_points

    # the reference backend is there even when the package runs from a source tree that was never installed
    own = EntryPoint("reference", "mdsample.backend.reference.backend:open_model", GROUP)
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


def place(facts: Facts, entry: EntryPoint, setup: Setup) -> tuple[Choice, int] | None:
    """Where a backend would put a model, and bytes that the weights take there; `None` if it does not say.

    Raises the `ModelError` of its opener for a device or a dtype that it does not have, and a model it does not run.
    """
    choose: Chooser | None = beside(entry, "choose")
    if choose is None:
        return None
    check: TrunkChecker | None = beside(entry, "check_trunk")
    if check is not None:
        check(facts.trunk)
    choice = choose(facts.dtype, setup)
    return choice, (facts.memory_packed if choice.packed else facts.memory)[choice.dtype]


def shortage(choice: Choice, needed: int) -> str:
    """Why so many bytes of weights do not fit there, and what to do; empty if they do."""
    available = choice.device.available
    if available is None or needed <= available:
        return ""
    return "too little memory; take a smaller dtype, another device or a smaller model"


def beside(entry: EntryPoint, function: str) -> Any:
    """A function of the module that a backend's entry point names; `None` if it has none of this name."""
    try:
        return type(entry)(entry.name, f"{entry.module}:{function}", entry.group).load()
    except AttributeError:
        return None
