"""Card: what a model folder says of itself in its optional `mdsample.toml`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import cast

import attrs

from mdsample.errors import ModelError
from mdsample.models.files import CARD

#: the template of a model that names none
TEMPLATE = "{prompt}{answer:128}"


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
    from mdsample.core.template import Template
    from mdsample.models.chat_template import read_chat_template

    chat = read_chat_template(folder)
    return template if chat is None else str(chat.around(Template.parse(template)))


def _name(folder: Path) -> str:
    folder = folder.absolute()
    # the hub's cache keeps a model as models--organisation--model/snapshots/<commit>
    cached = re.fullmatch(r"models--(.+)--(.+)", folder.parent.parent.name)
    return f"{cached[1]}/{cached[2]}" if cached and folder.parent.name == "snapshots" else folder.name
