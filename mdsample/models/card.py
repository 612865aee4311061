"""Card: what a model folder says of itself in its optional `mdsample.toml`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import cast

import attrs

from mdsample.core.template import Template
from mdsample.errors import ModelError, TemplateError
from mdsample.models.files import CARD, read_text

#: the template of a model that names none
TEMPLATE = "{prompt}{answer:128}"
_LONGEST = 1 << 16  # bytes


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
    #: whether it names the template itself
    own_template: bool = False


def read_card(folder: Path, template: str = TEMPLATE) -> Card:
    """The model folder's `mdsample.toml`, or the defaults if there is none; `ModelError` if it is malformed.

    `template`: the one of a folder that names none; in the checkpoint's chat template, if there is one. That it cannot
    be used is a `ModelError` as well.
    """
    path = folder / CARD
    text = read_text(path, _LONGEST) or ""
    try:
        entries: dict[str, object] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid TOML: {error}") from error
    known = ("template", "description")
    for key, value in entries.items():
        if key not in known:
            raise ModelError(f"{path}: unknown key {key!r:.80}; known keys: {', '.join(known)}")
        if not isinstance(value, str):
            raise ModelError(f"{path}: {key} must be a text; got {value!r:.80}")
    texts = cast("dict[str, str]", entries)
    plain = texts.get("template", template)
    suits = _checked(path, plain) if "template" in texts else _in_chat(folder, plain)
    return Card(model_name(folder), suits, texts.get("description", ""), plain, "template" in texts)


def _checked(path: Path, template: str) -> str:
    try:
        Template.parse(template)
    except TemplateError as error:
        sentence, *_ = str(error).split("\n")  # the caret belongs to a template that was typed
        raise ModelError(f"{path}: template: {sentence:.500}") from error
    return template


def _in_chat(folder: Path, template: str) -> str:
    # imported here: it imports this file
    from mdsample.models.text.chat_template import read_chat_template

    chat = read_chat_template(folder)
    return template if chat is None else str(chat.around(Template.parse(template)))


def model_name(folder: Path) -> str:
    """What the model in a folder is called: like the folder, or by the hub id that it was fetched as."""
    folder = folder.absolute()
    # the hub's cache keeps a model as models--organisation--model/snapshots/<commit>
    cached = re.fullmatch(r"models--(.+)--(.+)", folder.parent.parent.name)
    return f"{cached[1]}/{cached[2]}" if cached and folder.parent.name == "snapshots" else folder.name
