"""OpenAI's own client against a running server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from servers import Here

import mdsample
from mdsample.models.denoiser import Denoiser

QUESTION = "Ann has 3 coins and gets 4 more. How many coins does Ann have?"
PROMPT = f"Question: {QUESTION}\nReasoning:"
#: it writes the first positions of this row several times
REMASKS = "remdm('rescale', eta=0.9, steps=20)"
SHORT = {"slots": {"reasoning": 8}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def complete(here: Here, **more: Any) -> Any:
    return here.client.completions.create(**{"model": "tiny", "prompt": PROMPT, "max_tokens": 6, **more})


def chat(here: Here, **more: Any) -> Any:
    messages = [{"role": "user", "content": QUESTION}]
    return here.client.chat.completions.create(**{"model": "tiny", "messages": messages, "extra_body": SHORT, **more})


def test_models(here: Here) -> None:
    assert [model.id for model in here.client.models.list()] == ["tiny"]
    assert here.client.models.retrieve("tiny").owned_by == "mdsample"
    with pytest.raises(openai.NotFoundError, match="did you mean 'tiny'"):
        here.client.models.retrieve("tinny")


def test_completions_are_what_sample_gives(here: Here, tiny_gsm: Denoiser) -> None:
    policy = "top(2)+temperature(1)"
    prompts = [PROMPT, "Ben"]
    found = complete(here, prompt=prompts, n=2, seed=7, extra_body={"policy": policy})
    rows = mdsample.sample(
        tiny_gsm, [p for p in prompts for _ in range(2)], policy=policy, seed=7, template="{prompt}{text:6}"
    )
    assert [choice.text.strip() for choice in found.choices] == [row.text for row in rows]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage.passes == sum(row.nfe for row in rows)
    assert found.usage.rounds == max(row.rounds for row in rows)
    assert found.usage.completion_tokens <= 4 * 6
    assert found.seed == 7


def test_a_suffix_is_seen(here: Here, tiny_gsm: Denoiser) -> None:
    found = complete(here, suffix=" = 9.", max_tokens=3)
    row = mdsample.sample(
        tiny_gsm, {"prompt": PROMPT, "suffix": " = 9."}, policy="med", template="{prompt}{text:3}{suffix}"
    )
    assert found.choices[0].text.strip() == row.slots["text"]
    assert found.choices[0].text != complete(here, max_tokens=3).choices[0].text


def test_echo_stop_and_logprobs(here: Here) -> None:
    whole = complete(here, logprobs=0, max_tokens=8)
    text = whole.choices[0].text
    assert complete(here, echo=True, max_tokens=8).choices[0].text == PROMPT + text
    logs = whole.choices[0].logprobs
    assert "".join(logs.tokens) == text
    assert all(log <= 0 for log in logs.token_logprobs)
    stop = text[3:6]
    stopped = complete(here, stop=[stop, "never"], max_tokens=8).choices[0]
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    streamed = list(complete(here, stop=stop, max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == stopped.text
    assert complete(here, max_tokens=1).choices[0].finish_reason == "length"


def test_logprobs_end_where_the_text_ends(here: Here) -> None:
    whole = complete(here, logprobs=0, max_tokens=12).choices[0]
    # the stop begins in the midst of a token, which is in the text in part
    last = next(n for n, token in enumerate(whole.logprobs.tokens) if n > 2 and len(token) > 2)
    stop = whole.text[whole.logprobs.text_offset[last] + 1 :][:6]
    kept = whole.text.index(stop)
    assert kept == whole.logprobs.text_offset[last] + 1
    asked = {"logprobs": 0, "max_tokens": 12, "stop": stop}
    found = complete(here, **asked)
    (*_, end) = complete(here, **asked, stream=True, stream_options={"include_usage": True})
    *_, streamed, _ = complete(here, **asked, stream=True, stream_options={"include_usage": True})
    assert found.choices[0].text == whole.text[:kept]
    assert found.choices[0].logprobs.tokens == whole.logprobs.tokens[: last + 1]
    assert streamed.choices[0].logprobs.to_dict() == found.choices[0].logprobs.to_dict()
    assert found.usage.completion_tokens == end.usage.completion_tokens == last + 1

    reply = chat(here, logprobs=True).choices[0]
    stop = reply.message.content[4:8]
    asked = {"logprobs": True, "stop": stop}
    found = chat(here, **asked)
    text, tokens = found.choices[0].message.content, [token.token for token in found.choices[0].logprobs.content]
    assert text == reply.message.content[: reply.message.content.index(stop)]
    assert tokens == [token.token for token in reply.logprobs.content][: len(tokens)]
    assert len("".join(tokens[:-1]).lstrip()) < len(text) <= len("".join(tokens).lstrip())
    assert found.usage.completion_tokens == len(tokens)
    *_, streamed = chat(here, **asked, stream=True)
    assert streamed.choices[0].logprobs.to_dict() == found.choices[0].logprobs.to_dict()


def test_offsets_are_those_in_the_text_that_is_returned(here: Here) -> None:
    body: dict[str, Any] = {"template": "{prompt}{a:3} and{b:4}", "given": {"a": " 12"}}
    body["slots"] = {"b": {"length": 2, "choices": [" 7"]}}
    for more in ({}, {"extra_body": body}, {"extra_body": {"template": "{prompt}{a:3} and{b:4}", "regex": " [0-9]+"}}):
        for echo in (False, True):
            for stream in (False, True):
                asked = {"logprobs": 0, "echo": echo, "max_tokens": 8, **more}
                if stream:
                    chunks = list(complete(here, **asked, stream=True))
                    text, logs = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].logprobs
                else:
                    choice = complete(here, **asked).choices[0]
                    text, logs = choice.text, choice.logprobs
                assert text.startswith(PROMPT) == echo and logs.tokens
                for token, offset in zip(logs.tokens, logs.text_offset, strict=True):
                    assert text[offset : offset + len(token)] == token


def test_a_chat_in_the_models_own_template(here: Here, tiny_gsm: Denoiser) -> None:
    found = chat(here, seed=3, logprobs=True)
    template = "Question: {prompt}\nReasoning:{reasoning:8}\nAnswer:{answer:4}"
    row = mdsample.sample(tiny_gsm, QUESTION, policy="med", template=template)
    assert found.choices[0].message.content == row.text
    assert found.choices[0].message.role == "assistant"
    assert found.usage.prompt_tokens + 8 + 4 == len(row.tokens)
    assert all(token.top_logprobs == [] for token in found.choices[0].logprobs.content)
    assert found.usage.passes == row.nfe


@pytest.mark.parametrize("policy", ["med", "top(3)+temperature(1)", "random+steps(5)", REMASKS])
def test_a_stream_is_the_reply_bit_by_bit(here: Here, policy: str) -> None:
    asked = {"seed": 5, "extra_body": {"slots": {"reasoning": 12}, "policy": policy}, "n": 2}
    whole = chat(here, **asked)
    chunks = list(chat(here, **asked, stream=True, stream_options={"include_usage": True}))
    texts, ends = ["", ""], [None, None]
    for chunk in chunks[:-1]:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_canvas_comes_to_those_who_ask(here: Here) -> None:
    chunks = list(chat(here, stream=True, extra_body={**SHORT, "trace": True}))
    seen = [chunk.canvas for chunk in chunks if hasattr(chunk, "canvas")]
    assert seen[0]["slots"] == ["reasoning", "answer"]
    assert sorted(p for step in seen[1:] for p in step["position"]) == [
        place for place, blank in enumerate(seen[0]["canvas"][0]["blank"]) if blank
    ]
    assert any(step["look"]["probability"] for step in seen[2:])


def test_max_tokens_is_never_exceeded(here: Here) -> None:
    for most in (5, 7, 30):
        found = chat(here, max_tokens=most, extra_body={"policy": "steps(2)"})
        assert found.usage.completion_tokens <= most
    with pytest.raises(openai.BadRequestError, match="the slots have 9 positions to fill, and max_tokens is 3"):
        chat(here, max_tokens=3, extra_body={"template": "{prompt}{answer:9}"})
    with pytest.raises(openai.BadRequestError, match="takes at most 512"):
        complete(here, max_tokens=600)


def test_json_of_a_schema(here: Here) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    asked = {"response_format": form, "seed": 1, "temperature": 1.0}
    whole = chat(here, **asked)
    value = json.loads(whole.choices[0].message.content)
    assert value.keys() == {"name", "age"} and 1 <= value["age"] <= 99
    chunks = list(chat(here, **asked, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="max_tokens is 4"):
        chat(here, **asked, max_tokens=4)


def test_any_json_object(here: Here) -> None:
    found = chat(here, response_format={"type": "json_object"}, extra_body={"slots": {"answer": 12, "reasoning": 1}})
    assert isinstance(json.loads(found.choices[0].message.content), dict)


def test_our_fields_through_extra_body(here: Here) -> None:
    body = {
        "template": "{prompt}{a:3} and{b:4}",
        "given": {"a": " 12"},
        "slots": {"b": {"length": 2, "choices": [" 7"]}},
    }
    assert complete(here, extra_body=body).choices[0].text == " 12 and 7"
    assert complete(here, extra_body={"regex": "[0-9]{2}"}).choices[0].text.strip().isdigit()
    guessed = complete(here, max_tokens=8, seed=0, extra_body={"speculate": "2x1", "policy": "one-by-one"})
    plain = complete(here, max_tokens=8, seed=0, extra_body={"policy": "one-by-one"})
    assert guessed.choices == plain.choices
    assert guessed.usage.rounds <= plain.usage.rounds == 8


def test_temperature_and_bans(here: Here, tiny_gsm: Denoiser) -> None:
    # what a request says in OpenAI's words and in a policy's is the same
    warm = complete(here, temperature=0.7, top_p=0.9, seed=2)
    assert warm.choices == complete(here, seed=2, extra_body={"policy": "med+temperature(0.7,top_p=0.9)"}).choices
    assert complete(here, temperature=0).choices == complete(here).choices
    first = complete(here, max_tokens=1).choices[0].text
    (token,) = tiny_gsm.tokenizer.encode(first)
    assert complete(here, max_tokens=1, logit_bias={str(token): -100}).choices[0].text != first


def test_the_same_seed_is_the_same_text_alone_and_under_load(here: Here) -> None:
    asked = [
        {"seed": seed, "extra_body": {"policy": policy}, "prompt": f"{PROMPT} {seed}"}
        for seed in range(4)
        for policy in ("top(2)+temperature(1)", "eb(0.5)+temperature(1)", "remdm(steps=8)")
    ]
    alone = [complete(here, **one).choices for one in asked]
    here.model.passes.clear()
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda one: complete(here, **one).choices, asked))
    assert together == alone
    assert max(here.model.passes) == 4, "requests of different policies should share passes"


def test_without_a_seed_texts_differ_and_the_seed_is_told(here: Here) -> None:
    asked = {"max_tokens": 12, "temperature": 1.5}
    first, second = complete(here, **asked), complete(here, **asked)
    assert first.seed != second.seed
    assert first.choices != second.choices
    assert complete(here, **asked, seed=first.seed).choices == first.choices


def test_a_client_that_goes_away_frees_its_rows(here: Here) -> None:
    assert here.idle()
    here.model.gate.clear()
    stream = chat(here, stream=True, extra_body={"slots": {"reasoning": 90}, "policy": "one-by-one"})
    next(iter(stream))
    before = len(here.model.passes)
    stream.response.close()
    with pytest.raises(openai.APITimeoutError):
        here.client.with_options(timeout=0.3).completions.create(
            model="tiny", prompt="x", max_tokens=90, extra_body={"policy": "one-by-one"}
        )
    here.model.gate.set()
    assert here.idle()
    assert len(here.model.passes) - before < 30
