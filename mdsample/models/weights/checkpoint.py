"""A model folder's weights, checked before any is read: every tensor of the trunk is there once, whole and readable.

Shared by all backends. Nothing in a checkpoint is ever executed; only headers are read here.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs
import numpy as np

from mdsample.errors import ModelError
from mdsample.models.families.trunk import Single, Slice, Source, Stack, Trunk
from mdsample.models.files import Files, FolderFiles, read_bytes
from mdsample.models.weights.headers import Stored, is_name, parse_object, read_header
from mdsample.models.weights.piece import AnyPiece, Packed, Piece
from mdsample.models.weights.quantised import Packing, packings, parts

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_READABLE = ("F32", "F16", "BF16")
# rotary frequencies follow from the configuration; some published files carry them all the same
_BUFFER = "rotary_emb.inv_freq"
_LONGEST_INDEX = 1 << 26  # bytes; that of a model with 100,000 tensors has a seventh of it
_REMEDY = "; fetch both again, of one commit"
_COMPARED = 1 << 24  # bytes at a time
_TOLD = 4  # faults spelled out in one sentence


@attrs.frozen
class Checkpoint:
    """Weights that fit a trunk, still on the disk."""

    folder: Path
    trunk: Trunk
    #: by our own name. One piece is the tensor of `trunk.shapes`; several are stacked on a new first axis, in order
    pieces: Mapping[str, tuple[AnyPiece, ...]] = attrs.field(repr=False)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.trunk.parameters

    @property
    def bytes(self) -> int:
        """Size of the weights as they are stored."""
        return sum(piece.bytes for pieces in self.pieces.values() for piece in pieces)

    def memory(self, size: int, packed: bool = False) -> int:
        """Bytes that the weights take with `size` bytes a value; `packed`: where quantised ones stay packed."""
        if not packed:
            return self.parameters * size
        return sum(_kept(piece, size) for pieces in self.pieces.values() for piece in pieces)

    def check_memory(self, size: int, available: int | None = None, packed: bool = False) -> None:
        """Raises `ModelError` if the weights, as in `memory`, exceed the memory that is available, bytes.

        `available=None` asks the system; where it does not say, nothing is refused.
        """
        refuse_too_large(self.folder, self.parameters, self.bytes, self.memory(size, packed), available)


def _kept(piece: AnyPiece, size: int) -> int:
    """Bytes of a piece in memory, its scales and biases at `size` bytes a value, or all of it if it is not packed."""
    if isinstance(piece, Packed):
        return piece.words.bytes + 2 * size * math.prod(piece.scales.shape)
    return size * math.prod(piece.shape)


def open_checkpoint(where: Path | Files, trunk: Trunk) -> Checkpoint:
    """Finds every tensor of the trunk in `model.safetensors`, or in the shards that the index names.

    Reads headers only. `where`: a folder, or files that are elsewhere. The files follow the layout of `trunk.layouts`
    that has the most names in common with them. Raises one `ModelError` that names the tensors that are missing, not
    known to the family, there twice, of another shape or of another type; or says why a file cannot be believed.

    Files of tied weights may hold a head all the same. One that is not the embedding is the model's, as for
    transformers, and `Checkpoint.trunk` is not tied; only of files that are here can that be told.
    """
    files = FolderFiles(where) if isinstance(where, Path) else where
    folder, stored = files.folder, read_stored(files)
    trunk = trunk if (head := _own_head(trunk, stored)) is None else trunk.with_head(head)
    layout = max(trunk.layouts, key=lambda layout: len(stored.keys() & expected_shapes(layout, trunk).keys()))
    expected = expected_shapes(layout, trunk)
    try:
        packed = packings(expected, stored)
    except ValueError as fault:
        raise ModelError(f"the weights in {folder} do not fit config.json: {fault}{_REMEDY}") from fault
    packs = {part for name in packed for part in parts(name)}
    refuse_other_types(folder, {name: tensor for name, tensor in stored.items() if name not in packs})
    faults = [
        f"{name} {list(tensor.shape)} is not a tensor of {trunk.family} models"
        for name, tensor in stored.items()
        if name not in expected and name not in packs
        if not name.endswith(_BUFFER) and trunk.optional_tensors.get(name) != tensor.shape
        if not name.startswith(tuple(trunk.passed_over))
    ]
    for name, shape in expected.items():
        if name in packed:
            continue
        tensor = stored.get(name)
        if tensor is None:
            faults.append(f"{name} {list(shape)} is missing")
        elif tensor.shape != shape:
            faults.append(f"{name} should be {list(shape)}; found {list(tensor.shape)}")
        elif tensor.dtype not in _READABLE:
            faults.append(f"{name} is stored as {tensor.dtype}; F32, F16 and BF16 are read")
    complain(f"the weights in {folder} do not fit config.json", faults, _REMEDY)
    return Checkpoint(folder, trunk, {ours: _pieces(source, stored, packed) for ours, source in layout.items()})


def _own_head(trunk: Trunk, stored: Mapping[str, Stored]) -> str | None:
    """The name of a head beside tied weights that is not their embedding; `None` if there is none."""
    sources = [layout["embed"] for layout in trunk.layouts]
    embeddings = [stored[x.name] for x in sources if isinstance(x, Single) and x.name in stored]
    for name, shape in trunk.optional_tensors.items():
        head = stored.get(name)
        if head is not None and embeddings and head.shape == embeddings[0].shape == shape:
            return name if _differ(head, embeddings[0]) else None
    return None


def _differ(one: Stored, other: Stored) -> bool:
    """Whether two tensors of the same shape hold other bytes; not if one of them is not here."""
    if one.dtype != other.dtype or not (one.file.is_file() and other.file.is_file()):
        return one.dtype != other.dtype
    first, second = (np.memmap(x.file, np.uint8, "r", x.offset, (x.bytes,)) for x in (one, other))
    parts = [slice(start, start + _COMPARED) for start in range(0, one.bytes, _COMPARED)]
    return any(not np.array_equal(first[part], second[part]) for part in parts)


def refuse_other_types(folder: Path, stored: Mapping[str, Stored]) -> None:
    """`ModelError` if one of these tensors is of a type that only quantised weights have."""
    if quantised := sorted({t.dtype for t in stored.values()} - {*_READABLE, "F64", "I64", "BOOL"}):
        name = next(name for name, t in stored.items() if t.dtype in quantised)
        raise ModelError(
            f"the weights in {folder} are quantised in a way that is not read: {name} is stored as "
            f"{stored[name].dtype}; take the model in F32, F16 or BF16, or as MLX quantises it"
        )


def refuse_too_large(folder: Path, parameters: int, stored: int, needed: int, available: int | None) -> None:
    """`ModelError` if the bytes that so many weights need exceed what is available; `stored`: bytes of the files.

    `available=None` asks the system; where it does not say, nothing is refused.
    """
    available = available_memory() if available is None else available
    if available is not None and needed > available:
        raise ModelError(
            f"{folder.name} has {parameters:,} weights, which take {size_text(needed)} of memory, but "
            f"{size_text(available)} are available; free some, take a smaller model, or run it on a backend that keeps "
            f"the {size_text(stored)} of the files as they are"
        )


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping, as the system estimates it; None where it does not say."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    except OSError:
        pass
    # elsewhere the whole memory is the best that Python's own library tells
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def expected_shapes(layout: Mapping[str, Source], trunk: Trunk) -> dict[str, tuple[int, ...]]:
    """Shape of every published tensor of a layout."""
    shapes, expected = trunk.shapes, dict[str, tuple[int, ...]]()
    for ours, source in layout.items():
        match source:
            case Single(name):
                expected[name] = shapes[ours]
            case Stack(names):
                expected |= dict.fromkeys(names, shapes[ours][1:])
            case Slice(name, _, stop):
                rows = max(stop, expected[name][0] if name in expected else 0)
                expected[name] = (rows, *shapes[ours][1:])
    return expected


def _pieces(source: Source, stored: Mapping[str, Stored], packed: Mapping[str, Packing]) -> tuple[Piece | Packed, ...]:
    match source:
        case Single(name):
            names, rows = (name,), None
        case Stack(names):
            rows = None
        case Slice(name, start, stop):
            names, rows = (name,), (start, stop)

    def piece(name: str) -> Piece | Packed:
        if name not in packed:
            return Piece.of(name, stored[name], rows)
        words, scales, biases = (Piece.of(part, stored[part], rows) for part in parts(name))
        return Packed(words, scales, biases, packed[name])

    return tuple(map(piece, names))


def read_stored(files: Files) -> dict[str, Stored]:
    """Every tensor in the files by its published name; headers only.

    Raises `ModelError` if there are no safetensors files, or if they cannot be believed.
    """
    if files.size(_SINGLE) is not None:
        return read_header(files, _SINGLE)
    if files.size(_INDEX) is None:
        raise ModelError(_nothing(files))
    index, places = files.folder / _INDEX, _read_index(files)
    headers = {file: read_header(files, file) for file in sorted(set(places.values()))}
    faults = [
        f"{name} is there {times} times, in {' and '.join(file for file in headers if name in headers[file])}"
        for name, times in Counter(name for header in headers.values() for name in header).items()
        if times > 1
    ]
    if not faults:
        # a shard of another download, or an index of one
        faults += [f"{name} is not in {file}" for name, file in places.items() if name not in headers[file]]
        faults += [
            f"{name} in {file} is not named"
            for file, header in headers.items()
            for name in header
            if name not in places and not name.endswith(_BUFFER)
        ]
    complain(f"{index} and the files it names do not belong together", faults, "; fetch them again, of one commit")
    return {name: tensor for header in headers.values() for name, tensor in header.items()}


def _read_index(files: Files) -> dict[str, str]:
    """Which file each tensor is in; every file is a plain name, and there."""
    index = files.folder / _INDEX
    data = read_bytes(index, _LONGEST_INDEX) or b""
    if not data.strip():
        raise ModelError(f"{index} is empty; fetch it again")
    try:
        places = parse_object(data)["weight_map"]
    except (ValueError, KeyError) as error:
        reason = "it lacks weight_map" if isinstance(error, KeyError) else error
        raise ModelError(f"{index} must be JSON with an object weight_map from tensor to file: {reason}") from error
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} must be JSON with an object weight_map from tensor to file: found {places!r:.60}")
    named = cast("dict[str, object]", places)
    if strange := next((name for name in named if not is_name(name)), None):
        raise ModelError(f"{index}: {strange[:80]!r} cannot be the name of a tensor")
    for file in named.values():
        # a name with a folder in it could lead anywhere on this machine
        if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise ModelError(
                f"{index} names the shard {file!r:.80}; a shard must be a plain name that ends in .safetensors"
            )
    lost = [file for file in sorted({str(file) for file in named.values()}) if files.size(file) is None]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ModelError(f"{index} names the shard {lost[0][:80]!r}{more}, which is not in the folder; fetch it again")
    return {name: str(file) for name, file in named.items()}


def _nothing(files: Files) -> str:
    """Why files without weights to read have none."""
    folder, names = files.folder, files.names()
    if odd := next((name for name in (_SINGLE, _INDEX) if name in names), None):
        return f"{folder / odd} is not an ordinary file, or a link to one that is gone; fetch it again"
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        return (
            f"{folder} holds pickled weights only ({', '.join(pickles[:3])}); unpickling runs code from the file, so "
            "they are not read: convert them to safetensors"
        )
    if packed := [name for name in names if name.endswith(".gguf")]:
        return f"{folder} holds its weights as GGUF ({packed[0]:.80}), which is not read; take the model in safetensors"
    others = [name for name in names if name.endswith(".safetensors")]
    hint = "its weights are not there; fetch them again"
    if others:
        hint = f"found {', '.join(others[:3])}: shards are read with their index, which is to be fetched too"
        hint += f", and a single file is to be called {_SINGLE}" * (len(others) == 1)
    return f"{folder} holds neither {_SINGLE} nor {_INDEX}; {hint}"


def complain(what: str, faults: list[str], remedy: str = "") -> None:
    """`ModelError` with the first of the faults, if there are any, and what to do."""
    if faults:
        more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise ModelError(f"{what}: {'; '.join(faults[:_TOLD])}{more}{remedy}")


def size_text(count: int) -> str:
    """A number of bytes, for people."""
    unit, name = next(((2**k, name) for k, name in ((30, "GiB"), (20, "MiB")) if count >= 2**k), (2**10, "KiB"))
    return f"{count / unit:,.1f} {name}"
