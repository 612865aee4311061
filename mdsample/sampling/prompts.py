"""Prompts: what a row may be asked, told apart and put in its template.

A *prompt* is one of

- text, for the template's one field;
- a mapping of the template's fields to texts;
- a chat: a list of messages `{"role": …, "content": …}`, the last one the user's, put in the checkpoint's own chat
  template;
- token ids: a list or array of whole numbers that stands, as it is, in place of all that the template has before its
  first slot.

Any other iterable is several prompts. So a list of mappings with exactly the keys `role` and `content` is one chat, a
list of whole numbers is one prompt, and a list of lists of either is several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeGuard, cast

import attrs
import numpy as np

from mdsample.core.arrays import Ints
from mdsample.core.template import Slot, Template
from mdsample.errors import TemplateError, shown
from mdsample.models.chat import chat_of
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.prepared import Prepared, prepare


class Message(TypedDict):
    """One turn of a chat."""

    #: `system`, `user` or `assistant`
    role: str
    content: str


#: one prompt, see this module
Prompt = str | Mapping[str, str] | Sequence[Message] | Sequence[int] | Ints


def prepare_prompt(
    model: Denoiser, template: Template, own: bool, id: int | str, prompt: object, given: Mapping[str, str]
) -> Prepared:
    """A prompt in its template; `own`: it is the model's."""
    if isinstance(prompt, str):
        if len(template.fields) != 1:
            raise TemplateError(
                f"a text fills the one field of a template, but this one has: {', '.join(template.fields) or 'none'}; "
                "give a mapping of fields to texts"
            )
        return prepare(model, template, id, {template.fields[0]: prompt}, given)
    if isinstance(prompt, Mapping):
        return prepare(model, template, id, cast("Mapping[str, str]", prompt), given)
    if is_chat(prompt):
        wrapped, texts = chat_of(model.tokenizer, prompt, None if own else template)
        return prepare(model, wrapped, id, texts, given)
    if _is_ids(prompt):
        return _from_ids(model, template, id, [int(token) for token in prompt], given)
    raise TypeError(f"a prompt is text, a mapping of fields, a chat or token ids; got {shown(prompt, 60)}")


def _from_ids(
    model: Denoiser, template: Template, id: int | str, tokens: Sequence[int], given: Mapping[str, str]
) -> Prepared:
    """Token ids, and the template from its first slot on."""
    size, start = model.tokenizer.size, len(model.tokenizer.start)
    for token in tokens:
        if not 0 <= token < size:
            raise TemplateError(f"token id {token} does not exist; ids of {model.name} go from 0 to {size - 1}")
    first = next(place for place, piece in enumerate(template.pieces) if isinstance(piece, Slot))

    def whole(rest: Prepared) -> Prepared:
        return attrs.evolve(
            rest,
            tokens=[*tokens, *rest.tokens[start:]],  # the ids are all that stands before the first slot
            slot=[*[-1] * len(tokens), *rest.slot[start:]],
            blank=[*[False] * len(tokens), *rest.blank[start:]],
            others=tuple(whole(other) for other in rest.others),
        )

    return whole(prepare(model, Template(template.pieces[first:]), id, {}, given))


def is_prompt(value: object) -> bool:
    """Whether this is one prompt, not several."""
    return isinstance(value, str | Mapping) or is_chat(value) or _is_ids(value)


def is_chat(value: object) -> TypeGuard[Sequence[Mapping[str, str]]]:
    """Whether this is a list of messages."""
    if not isinstance(value, list | tuple) or not value:
        return False
    messages = cast("Sequence[object]", value)
    return all(isinstance(turn, Mapping) and set(cast("Any", turn)) == {"role", "content"} for turn in messages)


def _is_ids(value: object) -> TypeGuard[Sequence[int]]:
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray", value)
        return array.ndim == 1 and np.issubdtype(array.dtype, np.integer)
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(
        isinstance(token, int | np.integer) and not isinstance(token, bool) for token in cast("Sequence[object]", value)
    )
