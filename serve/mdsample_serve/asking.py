"""Asking: a request's body as rows, a template and a sampler; everything that is wrong with it is found here.

It runs beside the worker, so that no pass waits for it. Errors are those of the library, or `Refused`.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from mdsample.core.template import Template
from mdsample.errors import PolicyError
from mdsample.models.card import read_card
from mdsample.models.chat import chat_of
from mdsample.models.denoiser import Denoiser
from mdsample.models.text.chat_template import read_chat_template
from mdsample.policy.base import Policy
from mdsample.policy.constraint import Constraint
from mdsample.policy.language import Regex
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.sampling.prompts import prepare_prompt
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation
from mdsample.sampling.structured import Structured
from mdsample_serve import bodies
from mdsample_serve.errors import about, wrong
from mdsample_serve.json_object import JSON_OBJECT
from mdsample_serve.limits import Limits
from mdsample_serve.reading import Reader, Stops
from mdsample_serve.wishes import (
    blanks_of,
    check_most,
    draw_of,
    laid_out,
    named_of,
    policy_of,
    speculation_of,
    stops_of,
    with_lengths,
    within,
)

#: tokens of a completion where nothing is said of them, as with OpenAI
COMPLETION = 16


@attrs.frozen(eq=False, kw_only=True)
class Ask:
    """A request made ready."""

    rows: Sequence[Prepared]
    template: Template
    sampler: Sampler
    speculate: Speculation | None
    structured: Structured | None = None
    #: how each row is read
    readers: Sequence[Reader] = ()
    stops: Stops = attrs.field(factory=Stops)
    #: the policy that the body names, without what other fields add
    named: Policy | None = None
    #: what stands before each text, if it is asked for
    before: Sequence[str] = ()


@contextmanager
def fitting(named: Policy | None, model: Denoiser, template: Template, row: Prepared) -> Generator[None]:
    """Says of a `PolicyError` that it is about the field `policy`, if the policy `named` there does not fit a row."""
    try:
        yield
    except PolicyError as fault:
        raise wrong(str(fault), None if named is None or _fits(named, model, template, row) else "policy") from fault


def _fits(policy: Policy, model: Denoiser, template: Template, row: Prepared) -> bool:
    canvas = row.canvas(template.slots, model.tokenizer.mask_id)
    try:
        for part in policy.parts:
            part.check(canvas, model.tokenizer)
            if isinstance(part, Constraint):
                part.bind(model.tokenizer, canvas, model.vocab_size)
    except ValueError:
        return False
    return True


def check_ask(ask: Ask, limits: Limits) -> Ask:
    """Refuses what takes too much."""
    most = max((sum(row.blank) for row in ask.rows), default=0)
    if most > limits.blanks:
        raise wrong(f"a row has {most:,} positions to fill; this server takes {limits.blanks:,} at most", "max_tokens")
    guesses = ask.speculate
    if guesses is not None and guesses.depth * guesses.width > limits.guesses:
        raise wrong(f"speculate asks for more than {limits.guesses} guesses of a step; ask for fewer", "speculate")
    for part in ask.sampler.policy.parts:
        if getattr(part, "budget", 0) > limits.remasked:
            raise wrong(
                f"the policy may mask more than {limits.remasked:,} positions again; lower its budget", "policy"
            )
    return ask


def completion(body: bodies.Completions, model: Denoiser, seed: int, limits: Limits) -> Ask:
    """Rows of `/v1/completions`."""
    prompts = _prompts(body)
    _require_rows(len(prompts) * (body.n or 1), limits)
    if body.template is None:
        if body.suffix and not isinstance(prompts[0], str):
            raise wrong("a suffix goes with a prompt that is text, not token ids", "suffix")
        length = check_most(body.max_tokens or COMPLETION, limits)
        text = f"{{prompt}}{{text:{length}}}" + ("{suffix}" if body.suffix else "")
        template = Template.parse(text)
        if body.slots is not None:
            raise wrong("slots are those of a template; give one, or say max_tokens", "slots")
    else:
        if body.suffix:
            raise wrong("a suffix is text after the slot; with a template write it there", "suffix")
        template = within(with_lengths(laid_out(body.template), body), body.max_tokens, body, limits)
    sampler = Sampler(policy_of(body, model, template, draw_of(body), None), seed=seed)
    rows: list[Prepared] = []
    for prompt in prompts:
        for _ in range(body.n or 1):
            texts = {"prompt": prompt, "suffix": body.suffix} if body.suffix else prompt
            if body.template is not None and not template.fields and prompt == "":
                texts = {}
            rows.append(prepare_prompt(model, template, False, len(rows), texts, body.given or {}))
    before = [prompt for prompt in prompts for _ in range(body.n or 1)] if body.echo else []
    if any(not isinstance(prompt, str) for prompt in before):
        raise wrong("echo repeats a prompt that is text; with token ids leave it out", "echo")
    return check_ask(
        Ask(
            rows=rows,
            template=template,
            sampler=sampler,
            speculate=speculation_of(body),
            named=named_of(body),
            readers=[Reader.between_slots(model.tokenizer, row.slot, stripped=False) for row in rows],
            stops=stops_of(body, limits),
            before=[str(prompt) for prompt in before],
        ),
        limits,
    )


def _prompts(body: bodies.Completions) -> list[str | list[int]]:
    """One or several."""
    match body.prompt:
        case str() as text:
            return [text]
        case []:
            raise wrong("prompt is an empty list; give a text", "prompt")
        case several:
            ids = [token for token in several if isinstance(token, int)]
            if ids:
                return [ids]
            if [] in several:
                raise wrong("prompt holds an empty list of token ids; give some", "prompt")
            return [each for each in several if not isinstance(each, int)]


def _require_rows(rows: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise wrong(f"the request asks for {rows:,} rows; {limits.rows} are the most at once", "n")


def chat(body: bodies.Chat, model: Denoiser, seed: int, limits: Limits) -> Ask:
    """Rows of `/v1/chat/completions`."""
    _require_rows(body.n or 1, limits)
    messages = spoken(body.messages)
    base = _own_layout(model) if body.template is None else laid_out(body.template)
    most = body.max_completion_tokens or body.max_tokens
    schema = None
    if isinstance(body.response_format, bodies.SchemaFormat):
        schema = checked_schema(body.response_format.json_schema.schema_, "response_format")
    as_object = isinstance(body.response_format, bodies.ObjectFormat)
    if (schema is not None or as_object) and body.regex is not None:
        raise wrong("response_format and regex both say what the last slot holds; leave out one of them", "regex")
    base = with_lengths(base, body)
    # a schema has a length of its own, which the slot that it stands in for has not
    base = within(base, most, body, limits) if schema is None else base
    template, texts = placed(model, messages, base)
    structured = None
    if schema is not None:
        with about("response_format"):
            structured = Structured.of(schema, template, model.tokenizer)
        template = structured.template
        if most is not None and (blanks := blanks_of(template, body.given)) > most:
            raise wrong(
                f"the slots of this schema, and those before it, have {blanks} positions, and max_tokens is {most}; "
                "give at least that many, or a schema of shorter values",
                "max_tokens",
            )
    more = draw_of(body)
    if as_object:
        more.append(Regex(JSON_OBJECT, slot=template.slots[-1]))
    sampler = Sampler(policy_of(body, model, template, more, structured), seed=seed)
    rows = [prepare(model, template, number, texts, body.given) for number in range(body.n or 1)]
    readers = [
        Reader.between_slots(model.tokenizer, _last_slot(row, template) if as_object else row.slot, stripped=True)
        if structured is None
        else Reader.of_json(model.tokenizer, row.slot, structured, template)
        for row in rows
    ]
    ask = Ask(
        rows=rows,
        template=template,
        sampler=sampler,
        speculate=speculation_of(body),
        named=named_of(body),
        structured=structured,
        readers=readers,
        stops=stops_of(body, limits),
    )
    return check_ask(ask, limits)


def _last_slot(row: Prepared, template: Template) -> list[int]:
    """The numbers of a row's positions as if it had its last slot alone."""
    last = len(template.slots) - 1
    return [number if number == last else -1 for number in row.slot]


def _own_layout(model: Denoiser) -> Template:
    """The model's own template, as it is outside of a chat."""
    folder: Path | None = getattr(model.tokenizer, "folder", None)
    return Template.parse(model.template if not _has_chat(model) or folder is None else read_card(folder).plain)


def _has_chat(model: Denoiser) -> bool:
    folder: Path | None = getattr(model.tokenizer, "folder", None)
    return folder is not None and read_chat_template(folder) is not None


def spoken(messages: Sequence[bodies.Message]) -> list[dict[str, str]]:
    """Messages of plain text."""
    return [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": message.content
            if isinstance(message.content, str)
            else "".join(part.text for part in message.content),
        }
        for message in messages
    ]


def placed(
    model: Denoiser, messages: Sequence[Mapping[str, str]], base: Template
) -> tuple[Template, Mapping[str, str]]:
    """Messages around a template, in the model's chat template; of one without, the one message in the template."""
    if _has_chat(model):
        return chat_of(model.tokenizer, messages, base)
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise wrong(
            f"{model.name} has no chat template, so it answers one message of the user at a time; leave out the others",
            "messages",
        )
    if len(base.fields) != 1:
        raise wrong("the message fills the one field of a template; give a template of one field", "template")
    return base, {base.fields[0]: messages[0]["content"]}


def checked_schema(schema: object, param: str) -> object:
    """A schema, which is an object; null is none, and who sends it did not mean any text."""
    if not isinstance(schema, dict):
        raise wrong(f"a schema is a JSON object; got {json.dumps(schema):.60}", param)
    return schema  # pyright: ignore[reportUnknownVariableType]


def fields_of(template: Template, prompt: str | None, fields: Mapping[str, str] | None) -> Mapping[str, str]:
    """The texts of a template's fields."""
    if prompt is None:
        return fields or {}
    if fields is not None:
        raise wrong("prompt is the text of the template's one field; leave out fields, or prompt", "prompt")
    if len(template.fields) != 1:
        raise wrong(
            f"a prompt fills the one field of a template, but this one has: {', '.join(template.fields) or 'none'}; "
            "give fields",
            "prompt",
        )
    return {template.fields[0]: prompt}
