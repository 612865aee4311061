"""Models with a chat template, and several models behind one address."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from checkpoints import write_llada
from servers import Here, serving

import mdsample
from mdsample.backend.load import load
from mdsample.models.denoiser import Denoiser

TALK = [
    {"role": "system", "content": "Numbers only."},
    {"role": "user", "content": "one <|eot_id|>"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two"},
]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load(write_llada(tmp_path_factory.mktemp("llada") / "talker"), "reference")


@pytest.fixture(scope="module")
def here(talker: Denoiser, tiny_gsm: Denoiser) -> Iterator[Here]:
    with serving(talker, name="talker", others={"tiny-gsm": tiny_gsm}) as running:
        yield running


def test_a_conversation_is_what_sample_gives_of_it(here: Here, talker: Denoiser) -> None:
    asked = {"model": "talker", "messages": TALK, "seed": 3, "temperature": 1.0, "extra_body": {"policy": "top(2)"}}
    found = here.client.chat.completions.create(**asked, max_tokens=12)
    row = mdsample.sample(talker, TALK, template="{prompt}{answer:12}", policy="top(2)+temperature(1)", seed=3)
    assert found.choices[0].message.content == row.text
    assert found.usage.completion_tokens <= 12
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TALK]
    assert here.client.chat.completions.create(**{**asked, "messages": parts}, max_tokens=12).choices == found.choices
    record = here.post(
        "/v1/fill", {"messages": TALK, "seed": 3, "policy": "top(2)+temperature(1)", "template": "{prompt}{answer:12}"}
    )
    assert record.json()["text"] == row.text
    with pytest.raises(openai.BadRequestError, match="user"):
        here.client.chat.completions.create(**{**asked, "messages": TALK[:3]})


def test_json_in_a_conversation(here: Here) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [" 1", " 2"]}, "m": {"type": "boolean"}},
        "required": ["n", "m"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    found = here.client.chat.completions.create(model="talker", messages=TALK, response_format=form)
    assert json.loads(found.choices[0].message.content).keys() == {"n", "m"}


def test_each_name_is_its_own_model(here: Here) -> None:
    models = {model.id: model for model in here.client.models.list()}
    assert [*models] == ["talker", "tiny-gsm"]
    assert models["tiny-gsm"].max_length == 512
    body = {"prompt": "Ann has 3 coins", "slots": {"reasoning": 4}}
    assert here.post("/v1/fill", {**body, "model": "tiny-gsm"}).json()["model"] == "tiny-gsm"
    assert here.post("/v1/fill", {"prompt": "x", "slots": {"answer": 4}}).json()["model"] == "talker"
    assert (
        here.post("/v1/explain", {"model": "talker"}).json()["policy"]
        != here.post("/v1/explain", {"model": "tiny-gsm"}).json()["policy"]
    )


def test_no_path_of_this_machine_is_told(here: Here, talker: Denoiser) -> None:
    told = here.get("/v1/models").text + here.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).text
    assert str(talker.tokenizer.folder.parent) not in told
