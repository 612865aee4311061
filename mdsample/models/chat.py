"""A template in a model's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mdsample.core.template import Template
from mdsample.core.tokens import Tokenizer
from mdsample.errors import ModelError
from mdsample.models.card import read_card
from mdsample.models.chat_template import CONFIG, FILE, JSON, ChatTemplate, read_chat_template
from mdsample.models.find import facts_folder


def chat(
    model: str | Path, template: str | None = None, *, system: str | None = None, revision: str | None = None
) -> Template:
    """A template in a model's chat template: the user says what stands before the first slot, the model the rest.

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
    folder: Path | None = getattr(tokenizer, "folder", None)
    if folder is None:
        raise ModelError("this model was not read from a folder, so it has no chat template; give text or fields")
    plain = Template.parse(read_card(folder).plain) if template is None else template
    return _required(folder).conversation(messages, plain)


def _required(folder: Path) -> ChatTemplate:
    chat_template = read_chat_template(folder)
    if chat_template is None:
        raise ModelError(
            f"{folder} has no chat template: there is no {FILE}, and no chat_template in {CONFIG} or {JSON}; leave out "
            "the chat and the system message, and write all of the template yourself"
        )
    return chat_template
