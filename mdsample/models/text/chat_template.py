"""Chat templates: what an instruct checkpoint wraps a conversation in, as part of ordinary templates.

A template becomes a chat once, not row by row: what stands before its first slot is the user's message, the first slot
and all after it is the assistant's. The text that the checkpoint's chat template puts around them (special tokens, role
names, often a system message of its own) becomes fixed text; fields stay fields. So special tokens of the chat mean the
tokens, and what a row fills in is plain text that cannot end the user's turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

from mdsample.core.template import Field, Slot, Template, Text
from mdsample.errors import ModelError, TemplateError
from mdsample.models.families.special import read_object, read_roles
from mdsample.models.files import CARD, read_text

#: the file that holds a chat template, and those that may hold it under the name `chat_template`
FILE = "chat_template.jinja"
CONFIG, JSON = "tokenizer_config.json", "chat_template.json"

#: stands for a message while the chat template is rendered; letters only, of both cases, so that whatever is done to it
#: but trimming shows
_MARK = "MdsampleWritesTheMessageHere"
#: who may speak in a conversation
ROLES = ("system", "user", "assistant")


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
        user = {"role": "user", "content": _MARK}
        if system is not None:
            self._require_system()
        remedy = f"put the template that you want into {CARD} beside it"
        messages = [user] if system is None else [{"role": "system", "content": system}, user]
        around = self._rendered(messages, remedy).split(_MARK)
        if len(around) != 2:
            raise ModelError(
                f"{self._name} cannot be used: it must write the user's message once, as it stands, and does so "
                f"{len(around) - 1} times; {remedy}"
            )
        before, after = around
        first = next(place for place, piece in enumerate(template.pieces) if isinstance(piece, Slot))
        pieces = (Text(before), *template.pieces[:first], Text(after), *template.pieces[first:])
        # read again, so that adjacent texts become one
        return Template.parse(str(Template(pieces)))

    @property
    def _name(self) -> str:
        return f"the chat template in {self.path}"

    def conversation(
        self, messages: Sequence[Mapping[str, str]], template: Template
    ) -> tuple[Template, dict[str, str]]:
        """Several turns as a template whose fields are the messages, and the texts of these fields; see `chat_of`.

        The last message is the user's and fills the template's one field. Raises `TemplateError` or `ModelError`.
        """
        for number, message in enumerate(messages):
            role, content = message["role"], message["content"]
            if role not in ROLES or not isinstance(content, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TemplateError(
                    f"message {number} of the chat must have one of the roles {', '.join(ROLES)} and text as its "
                    f"content; got {role!r:.40} and {type(content).__name__}"
                )
        if messages[-1]["role"] != "user":
            raise TemplateError(f"the last message of a chat must be the user's; got {messages[-1]['role']!r}")
        if len(template.fields) != 1:
            raise TemplateError(
                "the last message of a chat fills the one field of a template, but this one has: "
                f"{', '.join(template.fields) or 'none'}"
            )
        if any(message["role"] == "system" for message in messages):
            self._require_system()
        remedy = "give the conversation as text, in a template of your own"
        # one mark inside the other's name would be found twice
        marks = [f"{_MARK}{'I' * number}End" for number in range(len(messages))]
        text = self._rendered([{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)], remedy)
        parts = re.split(f"({_MARK}I*End)", text)
        if parts[1::2] != marks:
            raise ModelError(
                f"{self._name} cannot be used for this chat: it must write every message once, as it stands and in "
                f"this order; {remedy}"
            )
        fields = [f"message-{number}" for number in range(len(messages) - 1)]
        taken = {*template.fields, *template.slots} & {*fields}
        if taken:
            raise TemplateError(f"{', '.join(taken)} is the name of a message here; give it another in the template")
        first = next(place for place, piece in enumerate(template.pieces) if isinstance(piece, Slot))
        pieces: list[Text | Field | Slot] = []
        for before, field in zip(parts[::2], fields, strict=False):
            pieces += [Text(before), Field(field)]
        pieces += [Text(parts[-3]), *template.pieces[:first], Text(parts[-1]), *template.pieces[first:]]
        texts = [message["content"] for message in messages]
        whole = Template.parse(str(Template(tuple(pieces))))
        return whole, dict(zip((*fields, *template.fields), texts, strict=True))

    def text(self, messages: Sequence[Mapping[str, str]], *, prompt: bool = True) -> str:
        """The conversation as text; `prompt`: up to where the assistant's reply begins. Raises `ModelError`."""
        return self._rendered(messages, "give the conversation as text", prompt=prompt)

    def turn_end(self) -> str:
        """What it writes after a text of the assistant's; empty if it cannot be rendered with one."""
        messages = [{"role": role, "content": _MARK} for role in ("user", "assistant")]
        try:
            return self._rendered(messages, "", prompt=False).rpartition(_MARK)[2]
        except ModelError:
            return ""

    def _require_system(self) -> None:
        messages = [{"role": "system", "content": _MARK}, {"role": "user", "content": ""}]
        if _MARK not in self._rendered(messages, "leave the system message out"):
            raise ModelError(f"{self._name} has no place for a system message; leave it out")

    def _rendered(self, messages: Sequence[Mapping[str, str]], remedy: str, *, prompt: bool = True) -> str:
        # imported here: most checkpoints that are opened need no Jinja
        from mdsample.errors import RenderError
        from mdsample.models.text.sandbox import render

        names = {"tools": None, "documents": None, "messages": [*messages], "add_generation_prompt": prompt}
        try:
            return render(self.source, {**self.tokens, **names})
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
    if not read_sources(folder):
        return ""
    return FILE if (folder / FILE).is_file() else _declared(folder)[0]


def read_sources(folder: Path) -> dict[str, str]:
    """Jinja by name of every chat template in a model folder, a single one as `default`; raises `ModelError`.

    `chat_template.jinja` comes before what `tokenizer_config.json` says, and that before `chat_template.json`.
    """
    source = read_text(folder / FILE)
    if source is not None:
        return {"default": source}
    name, declared = _declared(folder)
    match declared:
        case None:
            return {}
        case str():
            return {"default": declared}
        case list():
            return dict(_named(entry, folder / name) for entry in cast("list[object]", declared))
        case _:
            raise _malformed(folder / name, declared)


def _declared(folder: Path) -> tuple[str, object]:
    """What a file of JSON says of chat templates, and its name."""
    for name in (CONFIG, JSON):
        if (declared := read_object(folder / name).get("chat_template")) is not None:
            return name, declared
    return CONFIG, None


def _named(entry: object, path: Path) -> tuple[str, str]:
    match entry:
        case {"name": str(name), "template": str(source)}:
            return name, source
        case _:
            raise _malformed(path, entry)


def _malformed(path: Path, value: object) -> ModelError:
    return ModelError(
        f"{path}: chat_template must be a text, or a list of objects with name and template; got {value!r:.80}"
    )
