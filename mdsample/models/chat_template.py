"""Chat templates: what an instruct checkpoint wraps a conversation in, as part of ordinary templates.

A template becomes a chat once, not row by row: what stands before its first slot is the user's message, the first slot
and all after it is the assistant's. The text that the checkpoint's chat template puts around them (special tokens, role
names, often a system message of its own) becomes fixed text; fields stay fields. So special tokens of the chat mean the
tokens, and what a row fills in is plain text that cannot end the user's turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs

from mdsample.core.template import Slot, Template, Text
from mdsample.errors import ModelError
from mdsample.models.families.special import read_object, read_roles
from mdsample.models.files import CARD

#: the file that holds a chat template, and the one that may hold it under the name `chat_template`
FILE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"

#: stands for a message while the chat template is rendered; letters only, of both cases, so that whatever is done to it
#: but trimming shows
_MARK = "MdsampleWritesTheMessageHere"


@attrs.frozen
class ChatTemplate:
    """A checkpoint's chat template."""

    #: the file it was read from
    path: Path
    #: Jinja
    source: str
    #: what it may name: texts of special tokens by role (`bos_token`, `eos_token`, …)
    tokens: Mapping[str, str]

    def around(self, template: Template, system: str | None = None) -> Template:
        """`template` as a chat, see `chat`; raises `ModelError`."""
        if system is not None and _MARK not in self._rendered(_MARK, "", "leave the system message out"):
            raise ModelError(f"{self._name} has no place for a system message; leave it out")
        remedy = f"put the template that you want into {CARD} beside it"
        around = self._rendered(system, _MARK, remedy).split(_MARK)
        if len(around) != 2:
            raise ModelError(
                f"{self._name} cannot be used: it must write the user's message once, as it stands, and does so "
                f"{len(around) - 1} times; {remedy}"
            )
        before, after = around
        first = next(place for place, piece in enumerate(template.pieces) if isinstance(piece, Slot))
        pieces = (Text(before), *template.pieces[:first], Text(after), *template.pieces[first:])
        # read anew, so that texts that have come to stand side by side are one text
        return Template.parse(str(Template(pieces)))

    @property
    def _name(self) -> str:
        return f"the chat template in {self.path}"

    def _rendered(self, system: str | None, user: str, remedy: str) -> str:
        # imported here: most checkpoints that are opened need no Jinja
        from mdsample.errors import RenderError
        from mdsample.models.sandbox import render

        messages = [{"role": "user", "content": user}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        nothing = {"tools": None, "documents": None}
        try:
            return render(self.source, {**self.tokens, **nothing, "messages": messages, "add_generation_prompt": True})
        except RenderError as error:
            raise ModelError(f"{self._name} cannot be used: {error}; {remedy}") from error


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder, of several the one called `default`; `None` if there is none.

    Raises `ModelError` if it is malformed or if there are several and none is the default.
    """
    sources = read_sources(folder)
    if not sources:
        return None
    path = folder / chat_file(folder)
    if "default" not in sources:
        raise ModelError(
            f"{path} has chat templates ({', '.join(sources)}), but none called 'default'; put the template that you "
            f"want into {CARD} beside it"
        )
    return ChatTemplate(path, sources["default"], read_roles(folder))


def chat_file(folder: Path) -> str:
    """The name of the file that holds the chat template, empty if there is none; raises as `read_sources`."""
    return "" if not read_sources(folder) else FILE if (folder / FILE).is_file() else CONFIG


def read_sources(folder: Path) -> dict[str, str]:
    """Jinja by name of every chat template in a model folder, a single one as `default`; raises `ModelError`.

    `chat_template.jinja` comes before what `tokenizer_config.json` says.
    """
    path = folder / FILE
    if path.is_file():
        try:
            return {"default": path.read_text(encoding="utf-8")}
        except UnicodeDecodeError as error:
            raise ModelError(f"{path} is not UTF-8 (byte {error.start})") from error
    said = read_object(folder / CONFIG).get("chat_template")
    match said:
        case None:
            return {}
        case str():
            return {"default": said}
        case list():
            return dict(_named(entry, folder / CONFIG) for entry in cast("list[object]", said))
        case _:
            raise _malformed(folder / CONFIG, said)


def _named(entry: object, path: Path) -> tuple[str, str]:
    match entry:
        case {"name": str(name), "template": str(source)}:
            return name, source
        case _:
            raise _malformed(path, entry)


def _malformed(path: Path, found: object) -> ModelError:
    return ModelError(
        f"{path}: chat_template must be a text, or a list of objects with name and template; got {found!r:.80}"
    )
