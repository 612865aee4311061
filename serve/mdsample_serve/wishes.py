"""Wishes: what a body says of policy, slots and lengths, as parts and templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from mdsample.constraints.compile import from_expression
from mdsample.core.template import Slot, Template
from mdsample.models.decoding import default_text
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Part, Policy
from mdsample.policy.constraint import Ban
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.language import Choices, Regex
from mdsample.policy.parsing import parse
from mdsample.sampling.speculate import Speculation, as_speculation
from mdsample.sampling.structured import Structured
from mdsample_serve import bodies
from mdsample_serve.errors import about, half_letter, wrong
from mdsample_serve.limits import Limits
from mdsample_serve.reading import Stops


def policy_of(
    body: bodies.Layout, model: Denoiser, template: Template, more: Sequence[Part], structured: Structured | None
) -> Policy:
    """The policy of a request: what it names or the model's default, and what other fields add."""
    if body.policy is not None and not body.policy.strip():
        raise wrong("policy is empty; write one, such as 'med(0.2)', or leave it out for the default", "policy")
    policy = parse(_default(body, model, template)) if body.policy is None else parsed(body.policy)
    for part in (*more, *_held(body, model, template)):
        if part.seat == "draw" and any(other.seat == "draw" for other in policy.parts):
            raise wrong(
                "temperature and top_p are short for a part of the policy that says how tokens are drawn, and this "
                "policy has one; leave out one of the two",
                "temperature",
            )
        policy = policy + part
    return policy if structured is None else structured.policy(policy)


def parsed(text: str) -> Policy:
    """The policy that a body names; its texts may say by escapes what the body itself may not hold."""
    with about("policy"):
        policy = parse(text)
    for part in policy.parts:
        if half := half_letter([getattr(part, field.name) for field in attrs.fields(type(part))]):
            raise wrong(
                f"the policy's part {part.name} holds {half}, half of a surrogate pair, which is not valid unicode; "
                "remove or replace it",
                "policy",
            )
    return policy


def named_of(body: bodies.Layout) -> Policy | None:
    """The policy that a body names, if it names one."""
    return None if body.policy is None else parsed(body.policy)


def laid_out(text: str) -> Template:
    """The template that a body brings."""
    with about("template"):
        return Template.parse(text)


def _default(body: bodies.Layout, model: Denoiser, template: Template) -> str:
    """The policy where nobody names one; in a chat all of a reply is there to be read, so nothing ends early."""
    return default_text(model.policy, template) if isinstance(body, bodies.Fill) else model.policy or "med"


def _held(body: bodies.Layout, model: Denoiser, template: Template) -> list[Part]:
    """The constraints that `regex` and `slots` stand for."""
    parts: list[Part] = []
    if body.regex is not None:
        with about("regex"):
            parts.append(_compiled(Regex(body.regex, slot=template.slots[-1]), model))
    for name, wish in (body.slots or {}).items():
        if isinstance(wish, int):
            continue
        if wish.choices is not None and (not wish.choices or "" in wish.choices):
            what = "hold an empty text" if wish.choices else "are an empty list"
            raise wrong(f"the choices of slot {name!r:.60} {what}; give texts, or leave them out", "slots")
        with about("slots"):
            if wish.regex is not None:
                parts.append(_compiled(Regex(wish.regex, slot=name), model))
            if wish.choices is not None:
                parts.append(Choices(tuple(wish.choices), slot=name))
    return parts


def _compiled(part: Regex, model: Denoiser) -> Regex:
    """An expression that is one: compiled here, and kept, so that what is wrong with it is told of its own field."""
    from_expression(part.expression, model.tokenizer, pad=part.padded)
    return part


def with_lengths(template: Template, body: bodies.Layout) -> Template:
    """The template with slots as long as `slots` says."""
    lengths: dict[str, int] = {}
    for name, wish in (body.slots or {}).items():
        if name not in template.slots:
            raise wrong(f"there is no slot {name!r:.60}; slots here: {', '.join(template.slots)}", "slots")
        length = wish if isinstance(wish, int) else wish.length
        if length is not None:
            if length < 1:
                raise wrong(f"slot {name!r} needs a length of 1 or more; got {length}", "slots")
            lengths[name] = length
    return resized(template, lengths) if lengths else template


def resized(template: Template, lengths: Mapping[str, int]) -> Template:
    """The template with some slots of another length."""
    pieces = [
        attrs.evolve(piece, length=lengths.get(piece.name, piece.length)) if isinstance(piece, Slot) else piece
        for piece in template.pieces
    ]
    return Template(tuple(pieces))


def blanks_of(template: Template, given: Mapping[str, str] | None = None) -> int:
    """Positions that a row has to fill."""
    return sum(p.length for p in template.pieces if isinstance(p, Slot) and p.name not in (given or {}))


def check_most(most: int, limits: Limits) -> int:
    """`max_tokens` where it is the length of a slot."""
    if most > limits.blanks:
        raise wrong(
            f"max_tokens is {most:,}; this server fills {limits.blanks:,} positions of a row at most", "max_tokens"
        )
    return most


def within(template: Template, most: int | None, body: bodies.Layout, limits: Limits) -> Template:
    """The template with no more to fill than `max_tokens`.

    The one slot of a model's own template is as long as that; of several the longest gives way. A template that the
    request brings stays as it is.
    """
    if most is None:
        return template
    slots = [piece for piece in template.pieces if isinstance(piece, Slot) and piece.name not in (body.given or {})]
    over = sum(slot.length for slot in slots) - most
    if body.template is None and body.slots is None and slots:
        longest = max(slots, key=lambda slot: slot.length)
        if (len(slots) == 1 or over > 0) and longest.length > over:
            return resized(template, {longest.name: check_most(longest.length - over, limits)})
    if over > 0:
        raise wrong(
            f"the slots have {over + most} positions to fill, and max_tokens is {most}; shorten the slots, or give "
            "max_tokens at least that many",
            "max_tokens",
        )
    return template


def speculation_of(body: bodies.Layout) -> Speculation | None:
    """What `speculate` says."""
    try:
        return as_speculation(body.speculate)
    except (ValueError, TypeError) as fault:
        raise wrong(str(fault), "speculate") from fault


def draw_of(body: bodies.OpenAI) -> list[Part]:
    """The parts of a policy that OpenAI's fields stand for."""
    parts: list[Part] = []
    if body.temperature == 0:
        parts.append(Greedy())
    elif body.temperature is not None or body.top_p not in (None, 1.0):
        parts.append(Temperature(1.0 if body.temperature is None else body.temperature, top_p=body.top_p or 1.0))
    if body.logit_bias:
        if strange := [bias for bias in body.logit_bias.values() if not -100 <= bias <= 100]:
            raise wrong(f"a bias of logit_bias is a number from -100 to 100; got {strange[0]}", "logit_bias")
        if any(bias > -100 for bias in body.logit_bias.values()):
            raise wrong("logit_bias can only ban tokens here, with -100; a policy cannot weigh them", "logit_bias")
        if wrong_ids := [token for token in body.logit_bias if not (token.isascii() and token.isdigit())]:
            raise wrong(f"logit_bias is keyed by token ids; got {wrong_ids[0]!r:.40}", "logit_bias")
        parts.append(Ban(tuple(int(token[:12]) for token in body.logit_bias)))
    return parts


def stops_of(body: bodies.OpenAI, limits: Limits) -> Stops:
    """Texts at which to stop."""
    texts = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(texts) > limits.stops:
        raise wrong(f"stop holds {len(texts)} texts; {limits.stops} are the most", "stop")
    if "" in texts:
        raise wrong("stop holds an empty text; leave it out", "stop")
    return Stops(tuple(texts))
