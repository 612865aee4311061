"""What a safetensors file says it holds, read from its header alone and believed only where it adds up.

The format: eight bytes with the length of the header, the header (a JSON object: name to type, shape and byte range),
then the tensors without gaps (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import cast

import attrs

from mdsample.errors import ModelError
from mdsample.models.files import PEEK, Files, left_instead, parse_json

#: bytes of one value, by the format's name of the type; sub-byte types are left out, their ranges are not checked
SIZES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1},
    **{"U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8},
}
_LONGEST = 100_000_000  # the format's own limit on the header's length, bytes
_DIMENSIONS = 8
_NAME = 256  # characters


@attrs.frozen
class Stored:
    """One tensor of a file."""

    file: Path
    #: the format's name of the type: F32, BF16, …
    dtype: str
    shape: tuple[int, ...]
    #: byte of the file at which its first value stands
    offset: int

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in the file; the type is one of `SIZES`."""
        return self.count * SIZES[self.dtype]


def read_header(files: Files, name: str) -> dict[str, Stored]:
    """Every tensor of a safetensors file by its published name; `name` is the file's.

    No tensor data is read. Raises `ModelError` if it is not a safetensors file, or if its header cannot be true:
    byte ranges that overlap, leave gaps, do not fit type and shape, or do not end where the file ends.
    """
    file = files.folder / name
    length, text = _header_text(files, name)
    try:
        header = parse_object(text)
    except ValueError as error:
        raise _damaged(file, f"its header is not valid JSON ({error})") from error
    header.pop("__metadata__", None)
    if strange := next((key for key in header if not is_name(key)), None):
        raise _damaged(file, f"{strange[:80]!r} cannot be the name of a tensor")
    start = 8 + len(text)
    end, tensors = start, dict[str, Stored]()
    for begin, stop, tensor, dtype, shape in sorted(_entry(file, key, entry) for key, entry in header.items()):
        if start + begin != end:
            kind = "overlaps another tensor" if start + begin < end else f"leaves {start + begin - end} bytes unused"
            raise _damaged(file, f"{tensor} {kind}")
        size = math.prod(shape) * SIZES.get(dtype, 0)
        if dtype in SIZES and stop - begin != size:
            raise _damaged(file, f"{tensor} {list(shape)} of {dtype} takes {size} bytes, but {stop - begin} are given")
        tensors[tensor] = Stored(file, dtype, shape, end)
        end = start + stop
    if end != length:
        raise _damaged(file, f"its tensors end at byte {end}, but the file at byte {length}")
    return tensors


def parse_object(text: bytes) -> dict[str, object]:
    """A JSON object; `ValueError` if the text is none, or if a key in it is there twice."""
    value = parse_json(text, once=True)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object; found {type(value).__name__}")
    return cast("dict[str, object]", value)


def is_name(name: str) -> bool:
    """Whether this can be the name of a tensor: printable, so that it can stand in an error, and not endless."""
    return 0 < len(name) <= _NAME and name.isprintable()


def _header_text(files: Files, name: str) -> tuple[int, bytes]:
    """Length of the file, bytes, and its header."""
    file, length = files.folder / name, files.size(name) or 0
    if length < 8:
        raise _damaged(file, f"a safetensors file has at least 8 bytes, this one {length}")
    size = int.from_bytes(files.read(name, 0, 8), "little")
    if instead := left_instead(files.read(name, 0, min(length, PEEK))):
        raise ModelError(f"{file} {instead}")
    if size > length - 8:
        raise _damaged(file, f"it says that its header has {size} bytes, but only {length - 8} follow")
    if size > _LONGEST:
        raise _damaged(file, f"its header has {size} bytes; the format allows {_LONGEST}")
    return length, files.read(name, 8, 8 + size)


def _entry(file: Path, name: str, entry: object) -> tuple[int, int, str, str, tuple[int, ...]]:
    """First and last byte after the header, name, type, shape: they sort by where they stand."""
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    shape, place = _whole_numbers(fields.get("shape")), _whole_numbers(fields.get("data_offsets"))
    if (
        not isinstance(dtype, str)
        or not re.fullmatch(r"\w{1,20}", dtype)
        or shape is None
        or place is None
        or len(place) != 2
        or place[0] > place[1]
    ):
        raise _damaged(file, f"the header's entry of {name} must have dtype, shape and data_offsets")
    if len(shape) > _DIMENSIONS:
        raise _damaged(file, f"{name} has {len(shape)} axes; at most {_DIMENSIONS} make sense")
    return place[0], place[1], name, dtype, shape


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    numbers = tuple(item for item in items if type(item) is int and 0 <= item < 2**63)
    return numbers if len(numbers) == len(items) else None


def _damaged(file: Path, what: str) -> ModelError:
    return ModelError(f"{file} is damaged: {what}; fetch it again")
