"""Which tokens are special, where `config.json` does not say: read from the tokenizer's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs

from mdsample.errors import ModelError
from mdsample.models.files import MOST, read_json

#: bytes of tokenizer.json; that of a vocabulary of 262,144 tokens has half of it
LONGEST_TOKENIZER = 1 << 26
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


@attrs.frozen
class Special:
    """What the files beside `config.json` say about special tokens."""

    #: id by text of every added token
    ids: Mapping[str, int] = attrs.field(factory=dict[str, int])
    #: text by role (`mask_token`, `eos_token`, …), as declared in `tokenizer_config.json` or `special_tokens_map.json`
    roles: Mapping[str, str] = attrs.field(factory=dict[str, str])

    def id_of(self, role: str, *texts: str) -> int | None:
        """The id of the token declared for a role, else of the first of `texts` that is an added token."""
        for text in (self.roles.get(role), *texts):
            if text is not None and text in self.ids:
                return self.ids[text]
        return None


def read_special(folder: Path) -> Special:
    """The special tokens of a model folder, from the tokenizer's files where they are there.

    `tokenizer.json` gives the ids; the roles come from `tokenizer_config.json`, else from `special_tokens_map.json`.
    Raises `ModelError` if one of them is not valid JSON.
    """
    ids: dict[str, int] = {}
    listed = read_object(folder / "tokenizer.json", LONGEST_TOKENIZER).get("added_tokens")
    for entry in cast("list[object]", listed) if isinstance(listed, list) else []:
        fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        text, number = fields.get("content"), fields.get("id")
        if isinstance(text, str) and type(number) is int:
            ids[text] = number
    # older files keep the added tokens elsewhere; what is wrong there matters where nothing else tells of them
    for number, token in read_added(folder)[0].items():
        ids.setdefault(token.text, number)
    return Special(ids, read_roles(folder))


@attrs.frozen
class Added:
    """An added token, as the files beside the vocabulary declare it."""

    text: str
    #: how it is found in a text, as far as it is said: `lstrip`, `rstrip`, `normalized`, `single_word`, `special`
    flags: Mapping[str, bool]


def read_added(folder: Path) -> tuple[dict[int, Added], list[str]]:
    """Added tokens by id, sorted, and a sentence for each entry that is none; `ModelError` if a file is not JSON.

    They are those of `added_tokens_decoder` in `tokenizer_config.json`, then others of `added_tokens.json`, which
    has no flags: what is declared for a role there is special.
    """
    tokens, faults = dict[int, Added](), list[str]()
    path, other = folder / "tokenizer_config.json", folder / "added_tokens.json"
    declared = read_object(path).get("added_tokens_decoder")
    for number, entry in cast("dict[str, object]", declared).items() if isinstance(declared, dict) else ():
        text = _text(entry)
        if not (text and number.isdecimal() and len(number) < 10):
            faults.append(f"{path}: the added token {number!r:.40} needs a content; found {entry!r:.80}")
            continue
        said = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        tokens[int(number)] = Added(text, {name: said[name] is True for name in _FLAGS if name in said})
    special = set(read_roles(folder).values())
    for text, number in read_object(other).items():
        if type(number) is not int or not text:
            faults.append(f"{other} must give every token an id; found {text!r:.80}: {number!r:.40}")
            continue
        flags = {"special": text in special, "normalized": text not in special}
        tokens.setdefault(number, Added(text, flags))
    return dict(sorted(tokens.items())), faults


def read_ends(folder: Path) -> frozenset[int]:
    """Every token that ends a text by `eos_token_id` of `config.json` and of `generation_config.json`.

    Raises `ModelError` if one of them is not JSON, or says something else than token ids.
    """
    ends: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        said = read_object(folder / name).get("eos_token_id")
        for token in cast("list[object]", said) if isinstance(said, list) else [said] * (said is not None):
            if type(token) is not int:
                raise ModelError(f"{folder / name}: eos_token_id must be one token id or several; found {said!r:.80}")
            ends.add(token)
    return frozenset(ends)


def read_roles(folder: Path) -> dict[str, str]:
    """The text of each special token by its role (`mask_token`, `bos_token`, …); raises as `read_special`."""
    declared = read_object(folder / "special_tokens_map.json") | read_object(folder / "tokenizer_config.json")
    return {role: text for role in declared if role.endswith("_token") and (text := _text(declared[role])) is not None}


def _text(value: object) -> str | None:
    """A token's text, written as it is or as the `content` of an object."""
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else None


def read_object(path: Path, most: int = MOST) -> dict[str, object]:
    """The JSON object in a file, empty if there is no such file or no object in it; `ModelError` if it is not JSON."""
    value = read_json(path, most)
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
