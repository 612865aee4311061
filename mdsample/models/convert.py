"""Copies of checkpoints in the same layout: matrices packed, an adapter merged, written tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np

from mdsample._version import __version__
from mdsample.core.files import new_folder, require_new
from mdsample.errors import ModelError
from mdsample.models.card import read_card
from mdsample.models.families import read_config, read_fields
from mdsample.models.families.trunk import Single
from mdsample.models.fetch import fetch, fetch_adapter
from mdsample.models.inspect import adapter_files
from mdsample.models.weights.adapter import Adapter, identity, open_adapter
from mdsample.models.weights.checkpoint import Checkpoint, open_checkpoint, size_text
from mdsample.models.weights.headers import SIZES
from mdsample.models.weights.merging import merged
from mdsample.models.weights.piece import Merged, Packed, Piece
from mdsample.models.weights.pieces import as_stored, read_any
from mdsample.models.weights.quantised import BITS, GROUP_SIZES, Packing, parts, quantise

#: bytes of weights in one file, at most, unless one tensor has more
FILE_BYTES = 5 << 30
#: rows of a matrix that are quantised at a time, so that memory stays small
_ROWS = 4096


@attrs.frozen(kw_only=True)
class Converted:
    """A copy."""

    folder: Path
    #: `None`: nothing is packed
    packing: Packing | None
    #: of its weights' files
    bytes: int
    #: weights, and how many of them are in packed matrices
    parameters: int
    packed: int

    @property
    def bits_per_weight(self) -> float:
        """With scales, biases and what is not packed."""
        return 8 * self.bytes / self.parameters


@attrs.frozen
class _Tensor:
    """A published tensor, and how it is to be stored: as it is, or packed in three parts."""

    name: str
    dtype: str
    #: it, or runs of its rows, in their order
    pieces: tuple[Piece | Merged, ...]
    packing: Packing | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of it."""
        _, *row = self.pieces[0].shape
        return (sum(piece.shape[0] for piece in self.pieces), *row)

    @property
    def stored(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Names, types and shapes of its parts."""
        if self.packing is None:
            yield self.name, self.dtype, self.shape
            return
        words, scales = self.packing.shapes(self.shape)
        kinds = ("U32", self.dtype, self.dtype)
        yield from zip(parts(self.name), kinds, (words, scales, scales), strict=True)

    @property
    def count(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def bytes(self) -> int:
        """Size of its parts."""
        return sum(_size(dtype, shape) for _, dtype, shape in self.stored)


def convert(
    name: str | Path,
    out: str | Path,
    *,
    bits: int | None = 4,
    group_size: int = 64,
    revision: str | None = None,
    adapter: str | Path | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Converted:
    """Writes a copy of a model to the new folder `out`, its matrices quantised as `models.weights.quantised` says.

    `name`, `revision`, `adapter`: as `load` takes them; an adapter is merged. Embedding, head and every matrix of the
    layers are packed, but for those whose rows do not divide into groups and the routers of experts; what is not packed
    stays in its type. `bits=None` packs nothing, which makes sense with an adapter. `watch` is told how many weights
    are done, and of how many. Raises `ModelError`, and `WriteError` also if `out` exists; what a conversion that failed
    has written is removed.
    """
    if bits is None and adapter is None:
        raise ModelError("a copy with neither fewer bits nor an adapter is the same model; give one of them")
    if (bits is not None and bits not in BITS) or group_size not in GROUP_SIZES:
        raise ModelError(
            f"{bits} bits in groups of {group_size} cannot be written; there are {', '.join(map(str, BITS))} bits, and "
            f"groups of {', '.join(map(str, GROUP_SIZES))}"
        )
    packing, target = None if bits is None else Packing(bits, group_size), Path(out).expanduser()
    require_new(target)
    adapted = None if adapter is None else adapter_files(adapter)
    folder = fetch(name, revision, adapter=adapted)
    checkpoint = open_checkpoint(folder, read_config(folder))
    opened = None if adapted is None else open_adapter(fetch_adapter(adapted))
    if opened is not None:
        checkpoint = merged(checkpoint, opened)
    tensors = _tensors(checkpoint, packing)
    if packing is not None and all(tensor.packing is None for tensor in tensors):
        raise ModelError(f"no matrix of {folder.name} has rows that divide into groups of {group_size}; take less")
    needed = sum(tensor.bytes for tensor in tensors)
    free = shutil.disk_usage(target.absolute().parent).free
    if needed > free:
        raise ModelError(f"{target} would take {size_text(needed)}, but {size_text(free)} are free there")
    with new_folder(target) as part:
        _write_weights(part, tensors, watch)
        _write_rest(folder, part, name, revision, packing, opened, checkpoint.trunk.tied)
    packed = sum(tensor.count for tensor in tensors if tensor.packing is not None)
    return Converted(folder=target, packing=packing, bytes=needed, parameters=checkpoint.parameters, packed=packed)


def _tensors(checkpoint: Checkpoint, packing: Packing | None) -> list[_Tensor]:
    """Every published tensor once, whole, in the order of the layout."""
    tensors: dict[str, _Tensor] = {}
    # what is packed has the name that converters give it, where that is another
    layouts = () if packing is None else checkpoint.trunk.layouts
    packable = {source.name for layout in layouts for source in layout.values() if isinstance(source, Single)}
    for ours, pieces in checkpoint.pieces.items():
        for piece in pieces:
            if isinstance(piece, Packed):
                raise ModelError(
                    f"{checkpoint.folder.name} is quantised already ({piece.packing}); take the model it was made from"
                )
            (base,) = piece.stored
            before = tensors[base.name].pieces if base.name in tensors else ()
            *rows, width = piece.shape
            named = f"{base.name}.weight" if f"{base.name}.weight" in packable else base.name
            matrix = bool(rows) and named.endswith(".weight") and not ours.endswith(".router")
            fits = packing is not None and matrix and width % packing.group_size == 0
            runs = sorted((*before, piece), key=lambda run: run.stored[0].rows or (0, 0))
            tensors[base.name] = _Tensor(named, piece.dtype, tuple(runs), packing if fits else None)
    return list(tensors.values())


def _write_weights(folder: Path, tensors: list[_Tensor], watch: Callable[[int, int], None] | None) -> None:
    files: list[list[_Tensor]] = [[]]
    for tensor in tensors:
        size = sum(earlier.bytes for earlier in files[-1])
        if files[-1] and size + tensor.bytes > FILE_BYTES:
            files.append([])
        files[-1].append(tensor)
    kind = "pt" if all(tensor.packing is None for tensor in tensors) else "mlx"
    done, whole = 0, sum(tensor.count for tensor in tensors)
    places: dict[str, str] = {}
    for number, inside in enumerate(files, 1):
        file = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        with (folder / file).open("wb") as out:
            header: dict[str, object] = {"__metadata__": {"format": kind}}
            end = 0
            for tensor in inside:
                for part, dtype, shape in tensor.stored:
                    begin, end = end, end + _size(dtype, shape)
                    header[part] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
                    places[part] = file
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            out.write(len(text).to_bytes(8, "little") + text)
            for tensor in inside:
                for data in _data(tensor):
                    out.write(data)
                done += tensor.count
                if watch is not None:
                    watch(done, whole)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _data(tensor: _Tensor) -> Iterator[bytes]:
    """The bytes of a tensor's parts, one after the other."""
    dtype, packing = tensor.dtype, tensor.packing
    runs = map(read_any, tensor.pieces)
    if packing is None:
        yield from (as_stored(run, dtype).tobytes() for run in runs)
        return
    parts = [
        quantise(rows[first : first + _ROWS], packing)
        for rows in (run.reshape(-1, run.shape[-1]) for run in runs)
        for first in range(0, len(rows), _ROWS)
    ]
    yield from (words.tobytes() for words, _, _ in parts)
    yield from (as_stored(scales, dtype).tobytes() for _, scales, _ in parts)
    yield from (as_stored(biases, dtype).tobytes() for _, _, biases in parts)


def _write_rest(
    source: Path,
    folder: Path,
    name: str | Path,
    revision: str | None,
    packing: Packing | None,
    adapter: Adapter | None,
    tied: bool,
) -> None:
    """Configuration, tokenizer and a card that says where it comes from."""
    copy_rest(source, folder)
    config = read_fields(source)
    if packing is not None:
        settings = {"group_size": packing.group_size, "bits": packing.bits, "mode": "affine"}
        config |= {"quantization": settings, "quantization_config": settings}
    if not tied and config.get("tie_word_embeddings"):  # its head was found to be another
        config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    card = read_card(source)
    commit = source.name if source.parent.name == "snapshots" else revision
    command = f"mdsample convert {name} OUT"
    made = [f"- source: {card.name}{f' at revision {commit}' if commit else ''}"]
    if adapter is not None:
        made.append(f"- merged into it: the adapter {adapter.name}, {identity(adapter.folder)}")
        command += f" --adapter {adapter.name}"
    if packing is not None:
        made.append(f"- matrices: {packing}, affine; what is not packed stays as it was")
        command += f" --bits {packing.bits} --group-size {packing.group_size}"
    readers = "safetensors" if packing is None else "MLX's quantised safetensors"
    (folder / "README.md").write_text(
        f"# {card.name}, {'merged' if packing is None else 'quantised'}\n\n"
        + "\n".join(made)
        + f"\n- made with mdsample {__version__}: `{command}{f' --revision {revision}' if revision else ''}`\n\n"
        f"Run it with `mdsample run --model THIS_FOLDER`, or read it with anything that reads {readers}. "
        "The source's licence holds for this copy too.\n",
        encoding="utf-8",
    )


def copy_rest(source: Path, folder: Path) -> None:
    """Copies what a model folder holds besides its weights: configuration, tokenizer, templates."""
    for path in sorted(source.iterdir()):
        if (
            path.suffix in (".json", ".jinja", ".txt", ".toml", ".model")
            and ".index." not in path.name
            and path.is_file()
        ):
            shutil.copyfile(path, folder / path.name)


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    return SIZES[dtype] * int(np.prod(shape))
