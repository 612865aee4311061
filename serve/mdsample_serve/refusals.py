"""Refusals: fields of OpenAI's that cannot be honoured here, and why; their neutral values are taken."""

from __future__ import annotations

from typing import Any

from mdsample_serve import bodies
from mdsample_serve.errors import wrong

#: the values that ask for nothing, and why no other is taken
_NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "presence_penalty": ((0,), "a penalty depends on the order of writing, and positions are written in any order"),
    "frequency_penalty": ((0,), "a penalty depends on the order of writing, and positions are written in any order"),
    "best_of": ((1,), "it hides all but one; ask for n and choose"),
    "store": ((False,), "nothing is stored here"),
    "tools": (([],), "tools are not called here; say what you want as a schema, with response_format"),
    "tool_choice": (("none", "auto"), "tools are not called here"),
    "functions": (([],), "functions are not called here; say what you want as a schema, with response_format"),
    "function_call": (("none", "auto"), "functions are not called here"),
    "modalities": ((["text"],), "the models here write text"),
    "audio": ((), "the models here write text"),
    "prediction": ((), "there is no draft to start from; give a template with slots where the text may change"),
    "reasoning_effort": (("none",), "no effort can be set; give a template with a slot for the reasoning"),
    "verbosity": (("medium",), "no verbosity can be set; say how long slots are"),
    "web_search_options": ((), "nothing is searched here"),
    "top_logprobs": ((0,), "the alternatives to a token are not kept; leave it out, and logprobs are those of tokens"),
}


def check_completions(body: bodies.Completions) -> None:
    """`Refused` for what `/v1/completions` cannot honour."""
    _check(body)
    if body.logprobs not in (None, 0):
        raise wrong(
            "logprobs=0 tells the log-probability of each token when it was written; the alternatives are not kept, so "
            f"{body.logprobs} of them cannot be told",
            "logprobs",
        )


def check_chat(body: bodies.Chat) -> None:
    """`Refused` for what `/v1/chat/completions` cannot honour."""
    _check(body)
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise wrong("max_tokens and max_completion_tokens differ; give one of them", "max_tokens")


def _check(body: bodies.OpenAI) -> None:
    for name, (neutral, why) in _NEUTRAL.items():
        value = getattr(body, name, None)
        if value is not None and value not in neutral:
            raise wrong(f"{name} cannot be honoured: {why}", name, "unsupported_parameter")
    if body.stream_options is not None and not body.stream:
        raise wrong("stream_options are for stream: true; leave them out", "stream_options")
    if body.stream_options is not None and body.stream_options.include_obfuscation:
        raise wrong("include_obfuscation cannot be honoured: chunks are sent as they are", "stream_options")
