"""A template in a model's chat template."""

from __future__ import annotations

from pathlib import Path

from mdsample.core.template import Template
from mdsample.errors import ModelError
from mdsample.models.card import read_card
from mdsample.models.chat_template import CONFIG, FILE, read_chat_template
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
    found = read_chat_template(folder)
    if found is None:
        raise ModelError(
            f"{folder} has no chat template: there is no {FILE}, and no chat_template in {CONFIG}; leave out the chat "
            "and the system message, and write all of the template yourself"
        )
    return found.around(Template.parse(read_card(folder).plain if template is None else template), system)
