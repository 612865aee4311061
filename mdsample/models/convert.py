"""Quantised copies of checkpoints: the same layout with its matrices packed, written tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample._version import __version__
from mdsample.core.arrays import Floats
from mdsample.core.files import new_folder, require_new
from mdsample.errors import ModelError
from mdsample.models.card import read_card
from mdsample.models.checkpoint import Checkpoint, Packed, Piece, open_checkpoint, size_text
from mdsample.models.families import read_config, read_fields
from mdsample.models.fetch import fetch
from mdsample.models.headers import SIZES
from mdsample.models.pieces import read_piece
from mdsample.models.quantised import BITS, GROUP_SIZES, Packing, parts, quantise

#: bytes of weights in one file, at most, unless one tensor has more
FILE_BYTES = 5 << 30
#: rows of a matrix that are quantised at a time, so that memory stays small
_ROWS = 4096


@attrs.frozen(kw_only=True)
class Converted:
    """A quantised copy."""

    folder: Path
    packing: Packing
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
    """A published tensor, and how it is to be stored: in one part, or in three."""

    piece: Piece
    packed: bool

    def stored(self, packing: Packing) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Names, types and shapes of its parts."""
        if not self.packed:
            yield self.piece.name, self.piece.dtype, self.piece.shape
            return
        words, scales = packing.shapes(self.piece.shape)
        kinds = ("U32", self.piece.dtype, self.piece.dtype)
        yield from zip(parts(self.piece.name), kinds, (words, scales, scales), strict=True)

    def bytes(self, packing: Packing) -> int:
        """Size of its parts."""
        return sum(_size(dtype, shape) for _, dtype, shape in self.stored(packing))


def convert(
    name: str | Path,
    out: str | Path,
    *,
    bits: int = 4,
    group_size: int = 64,
    revision: str | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Converted:
    """Writes a copy of a model to the new folder `out`, its matrices quantised as `mdsample.models.quantised` says.

    `name`, `revision`: as `load` takes them. Embedding, head and every matrix of the layers are packed, but for those
    whose rows do not divide into groups and the routers of experts; what is not packed stays in its type. `watch` is
    told how many weights are done, and of how many. Raises `ModelError`, and `WriteError` also if `out` exists; what a
    conversion that failed has written is removed.
    """
    if bits not in BITS or group_size not in GROUP_SIZES:
        raise ModelError(
            f"{bits} bits in groups of {group_size} cannot be written; there are {', '.join(map(str, BITS))} bits, and "
            f"groups of {', '.join(map(str, GROUP_SIZES))}"
        )
    packing, target = Packing(bits, group_size), Path(out).expanduser()
    require_new(target)
    folder = fetch(name, revision)
    checkpoint = open_checkpoint(folder, read_config(folder))
    tensors = _tensors(checkpoint, packing)
    if not any(tensor.packed for tensor in tensors):
        raise ModelError(f"no matrix of {folder.name} has rows that divide into groups of {group_size}; take less")
    needed = sum(tensor.bytes(packing) for tensor in tensors)
    free = shutil.disk_usage(target.absolute().parent).free
    if needed > free:
        raise ModelError(f"{target} would take {size_text(needed)}, but {size_text(free)} are free there")
    with new_folder(target) as part:
        _write_weights(part, tensors, packing, watch)
        _write_rest(folder, part, name, revision, packing, checkpoint.trunk.tied)
    packed = sum(int(np.prod(tensor.piece.shape)) for tensor in tensors if tensor.packed)
    return Converted(folder=target, packing=packing, bytes=needed, parameters=checkpoint.parameters, packed=packed)


def _tensors(checkpoint: Checkpoint, packing: Packing) -> list[_Tensor]:
    """Every published tensor once, whole, in the order of the layout."""
    tensors: dict[str, _Tensor] = {}
    for ours, pieces in checkpoint.pieces.items():
        for piece in pieces:
            if isinstance(piece, Packed):
                raise ModelError(
                    f"{checkpoint.folder.name} is quantised already ({piece.packing}); take the model it was made from"
                )
            whole = piece if piece.rows is None else _joined(tensors.get(piece.name), piece)
            *rows, width = piece.shape
            matrix = bool(rows) and piece.name.endswith(".weight") and not ours.endswith(".router")
            tensors[piece.name] = _Tensor(whole, matrix and width % packing.group_size == 0)
    return list(tensors.values())


def _joined(before: _Tensor | None, piece: Piece) -> Piece:
    """Neighbouring rows of one published tensor."""
    if before is None:
        return piece
    assert before.piece.rows is not None and piece.rows is not None
    rows = min(before.piece.rows[0], piece.rows[0]), max(before.piece.rows[1], piece.rows[1])
    offset = min(before.piece.offset, piece.offset)
    return attrs.evolve(piece, rows=rows, offset=offset, shape=(rows[1] - rows[0], *piece.shape[1:]))


def _write_weights(
    folder: Path, tensors: list[_Tensor], packing: Packing, watch: Callable[[int, int], None] | None
) -> None:
    files: list[list[_Tensor]] = [[]]
    for tensor in tensors:
        size = sum(earlier.bytes(packing) for earlier in files[-1])
        if files[-1] and size + tensor.bytes(packing) > FILE_BYTES:
            files.append([])
        files[-1].append(tensor)
    done, whole = 0, sum(int(np.prod(tensor.piece.shape)) for tensor in tensors)
    places: dict[str, str] = {}
    for number, inside in enumerate(files, 1):
        file = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        with (folder / file).open("wb") as out:
            header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
            end = 0
            for tensor in inside:
                for part, dtype, shape in tensor.stored(packing):
                    begin, end = end, end + _size(dtype, shape)
                    header[part] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
                    places[part] = file
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            out.write(len(text).to_bytes(8, "little") + text)
            for tensor in inside:
                for data in _data(tensor, packing):
                    out.write(data)
                done += int(np.prod(tensor.piece.shape))
                if watch is not None:
                    watch(done, whole)
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _data(tensor: _Tensor, packing: Packing) -> Iterator[bytes]:
    """The bytes of a tensor's parts, one after the other."""
    piece = tensor.piece
    matrix = read_piece(piece)
    if not tensor.packed:
        yield _rounded(matrix, piece.dtype).tobytes()
        return
    rows = matrix.reshape(-1, matrix.shape[-1])
    parts = [quantise(rows[first : first + _ROWS], packing) for first in range(0, len(rows), _ROWS)]
    yield from (words.tobytes() for words, _, _ in parts)
    yield from (_rounded(scales, piece.dtype).tobytes() for _, scales, _ in parts)
    yield from (_rounded(biases, piece.dtype).tobytes() for _, _, biases in parts)


def _rounded(values: Floats, dtype: str) -> NDArray[np.generic]:
    """As they are stored, little-endian; to the nearest, ties to even."""
    if dtype != "BF16":
        return values.astype({"F32": "<f4", "F16": "<f2"}[dtype])
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype("<u2")


def _write_rest(
    source: Path, folder: Path, name: str | Path, revision: str | None, packing: Packing, tied: bool
) -> None:
    """Configuration, tokenizer and a card that says where it comes from."""
    copy_rest(source, folder)
    settings = {"group_size": packing.group_size, "bits": packing.bits, "mode": "affine"}
    config = read_fields(source) | {"quantization": settings, "quantization_config": settings}
    if not tied and config.get("tie_word_embeddings"):  # its head was found to be another
        config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    card = read_card(source)
    commit = source.name if source.parent.name == "snapshots" else revision
    (folder / "README.md").write_text(
        f"# {card.name}, quantised\n\n"
        f"- source: {card.name}{f' at revision {commit}' if commit else ''}\n"
        f"- matrices: {packing}, affine; what is not packed stays as it was\n"
        f"- made with mdsample {__version__}: `mdsample convert {name} OUT --bits {packing.bits} "
        f"--group-size {packing.group_size}{f' --revision {revision}' if revision else ''}`\n\n"
        f"Run it with `mdsample run --model THIS_FOLDER`, or read it with anything that reads MLX's quantised "
        f"safetensors. The source's licence holds for this copy too.\n",
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
