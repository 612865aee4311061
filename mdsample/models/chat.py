"""A template in a model's chat template, once for all rows or around the messages that a row brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

from mdsample.core.template import Template
from mdsample.core.tokens import Tokenizer
from mdsample.errors import ModelError, RecordError, TemplateError, shown
from mdsample.models.card import read_card
from mdsample.models.denoiser import Denoiser
from mdsample.models.find import facts_folder
from mdsample.models.text.chat_template import CONFIG, FILE, JSON, ROLES, ChatTemplate, read_chat_template


def chat(
    model: str | Path, template: str | None = None, *, system: str | None = None, revision: str | None = None
) -> Template:
    """A template in a model's chat template: the user says the text before the first slot, the model the rest.

    `model`, `revision`: as `load` takes them; of a model on the hub only small files are fetched. `template`: text of a
    template; by default the model's own, as it is outside of a chat. `system`: text of a system message; like all text
    of a template it may name special tokens, but its braces are literal.

    What fields bring stands in the chat as it is: a chat template that trims messages does not trim it. Raises
    `ModelError` if the model has no chat template or one that cannot be used, or none with a place for `system`, and
    `TemplateError` for a wrong `template`.
    """
    folder = facts_folder(model, revision)
    around = _required(folder).around
    return around(Template.parse(read_card(folder).plain if template is None else template), system)


def chat_of(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], template: Template | None = None
) -> tuple[Template, Mapping[str, str]]:
    """A conversation in the chat template of a loaded model, and the texts of the fields that it consists of.

    The last message fills the template's one field; by default the template is the model's own, as it is outside of a
    chat. Raises `ModelError` if the model has no chat template or one that cannot be used, and `TemplateError` for
    messages that are not a conversation.
    """
    folder = _folder(tokenizer)
    return _required(folder).conversation(messages, plain_template(tokenizer) if template is None else template)


def plain_template(tokenizer: Tokenizer) -> Template:
    """A loaded model's own template as it is outside of a chat; `ModelError` if it was not read from a folder."""
    return Template.parse(read_card(_folder(tokenizer)).plain)


def _folder(tokenizer: Tokenizer) -> Path:
    folder: Path | None = getattr(tokenizer, "folder", None)
    if folder is None:
        raise ModelError("this model was not read from a folder, so it has no chat template; give text or fields")
    return folder


#: the turns of a row's conversation, each with `role` and `content`
Messages = tuple[Mapping[str, str], ...]
#: the key of a row that holds them
MESSAGES = "messages"


def messages_of(row: Mapping[str, object], fields: Sequence[str]) -> Messages:
    """The messages of a row of JSON lines, empty if it has none; `fields`: of the template, the last message fills it.

    `messages` that is null is none, and where it is the name of a field it is that field's text. Raises `RecordError`.
    """
    value = row.get(MESSAGES)
    if value is None or MESSAGES in fields:
        return ()
    if filled := [field for field in fields if row.get(field) is not None]:
        raise RecordError(
            f"the row has 'messages' and also {filled[0]!r}, which the last message fills; leave one of them out"
        )
    rule = f"a list of objects with role ({', '.join(ROLES)}) and content (text), the last one the user's"
    if not (isinstance(value, list) and value):
        raise RecordError(f"'messages' must be {rule}; got {shown(cast('object', value), 40)}")
    messages = list[dict[str, str]]()
    for number, message in enumerate(cast("list[object]", value)):
        if not isinstance(message, dict):
            raise RecordError(f"'messages' must be {rule}; message {number} is {shown(message, 40)}")
        turn = cast("dict[str, object]", message)
        if wrong := [*({"role", "content"} - turn.keys()), *(turn.keys() - {"role", "content"})]:
            fault = "has" if wrong[0] in turn else "lacks"
            raise RecordError(f"'messages' must be {rule}; message {number} {fault} {shown(sorted(wrong)[0], 40)}")
        role, content = turn["role"], turn["content"]
        if role not in ROLES or not isinstance(content, str):
            raise RecordError(
                f"'messages' must be {rule}; message {number} has the role {shown(role, 40)} and as its content "
                f"{shown(content, 40)}"
            )
        messages.append({"role": str(role), "content": content})
    if messages[-1]["role"] != "user":
        raise RecordError(f"the last of the row's messages must be the user's; it is of the {messages[-1]['role']}")
    return tuple(messages)


@attrs.frozen(eq=False)
class Chats:
    """A loaded model's chat template around the messages of rows."""

    tokenizer: Tokenizer
    #: the model's, for messages
    name: str
    #: what the last message and the reply stand in, outside of the chat; `None`: the model's own template
    template: Template | None = None
    #: text of a system message for rows that bring none
    system: str | None = attrs.field(default=None, kw_only=True)
    #: why no row may bring messages; empty if it may
    barred: str = attrs.field(default="", kw_only=True)
    #: templates by the roles of the messages, which alone decide them
    _around: dict[tuple[str, ...], Template] = attrs.field(factory=dict[tuple[str, ...], Template], init=False)

    @staticmethod
    def of(denoiser: Denoiser, template: Template) -> Chats:
        """Around the template that rows without messages are put in."""
        return Chats(denoiser.tokenizer, denoiser.name, None if str(template) == denoiser.template else template)

    def changed(self, change: Callable[[Template], Template]) -> Chats:
        """Around another template, made of this one's; its slots are to be those of rows without messages."""
        if self.template is None and getattr(self.tokenizer, "folder", None) is None:
            return self  # it has no chat template either
        plain = plain_template(self.tokenizer) if self.template is None else self.template
        return Chats(self.tokenizer, self.name, change(plain), system=self.system, barred=self.barred)

    def placed(
        self, template: Template, texts: Mapping[str, str], messages: Messages
    ) -> tuple[Template, Mapping[str, str]]:
        """A row's template, and the texts of its fields: `template` and `texts` where it has no `messages`.

        The slots are those of `template`. Raises `TemplateError` if the model or the template takes no messages.
        """
        if not messages:
            return template, texts
        if self.barred:
            raise TemplateError(self.barred)
        folder: Path | None = getattr(self.tokenizer, "folder", None)
        if self.system is not None and all(message["role"] != "system" for message in messages):
            messages = ({"role": "system", "content": self.system}, *messages)
        roles = tuple(message["role"] for message in messages)
        try:
            if folder is None or read_chat_template(folder) is None:
                raise TemplateError(
                    f"{self.name} has no chat template to put messages in; give the row a text for the template's "
                    "field instead of them"
                )
            if self.template is not None and self.template.has_turns(self.tokenizer):
                raise TemplateError(
                    "the template writes the turns of a chat itself, so messages have no place in it; give --chat and "
                    "a template of what stands in the last message and the reply, such as '{prompt}{answer:64}'"
                )
            if roles not in self._around:
                self._around[roles], _ = chat_of(self.tokenizer, messages, self.template)
        except ModelError as fault:
            raise TemplateError(str(fault)) from fault
        around = self._around[roles]
        # its fields are the messages in their order
        return around, dict(zip(around.fields, (message["content"] for message in messages), strict=True))


def _required(folder: Path) -> ChatTemplate:
    chat_template = read_chat_template(folder)
    if chat_template is None:
        raise ModelError(
            f"{folder} has no chat template: there is no {FILE}, and no chat_template in {CONFIG} or {JSON}; leave out "
            "the chat and the system message, and write all of the template yourself"
        )
    return chat_template
