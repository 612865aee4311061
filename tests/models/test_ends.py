"""Where a text ends: every end token counts, of the configuration, of the generation settings, of a chat's turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chats import PLAIN, write_tokenizer
from checkpoints import END, as_dream_is_published, write_checkpoint, write_family

import mdsample
from mdsample.core.tokens import filled_up, until_end
from mdsample.errors import ModelError
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import read
from mdsample.sampling.trace import Trace
from mdsample.scoring.judge import _wanted
from mdsample.scoring.score import score

#: as Qwen2, Dream and SDAR publish it, in short
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)


def dream_folder(path: Path, source: str = TURNS) -> Path:
    folder = as_dream_is_published(write_family(path, "dream"))
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "chat_template": source}))
    return folder


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return mdsample.load(dream_folder(tmp_path_factory.mktemp("models") / "dream"), backend="reference")


def ids(model: Denoiser, *texts: str) -> list[int]:
    special = model.tokenizer.special
    return [
        token
        for text in texts
        for token in ([model.tokenizer.special_id(text)] if text in special else model.tokenizer.encode(text))
    ]


def test_a_slot_is_read_up_to_the_turns_end(dream: Denoiser) -> None:
    tokens = ids(dream, "Ann", "<|im_end|>", " cat", END)
    assert until_end(tokens, dream.tokenizer) == ids(dream, "Ann")
    slot, blank = np.zeros(len(tokens), np.int32), np.zeros(len(tokens), np.bool_)
    assert read(dream.tokenizer, np.array(tokens, np.int32), blank, slot, ("a",)) == ("Ann", {"a": "Ann"})


def test_a_given_answer_ends_its_turn_where_the_template_is_a_chat(dream: Denoiser) -> None:
    chat = mdsample.Template.parse(dream.template)
    (slot,) = chat.slots
    whole = chat.row(dream.tokenizer, {"prompt": "the cat"}, {slot: "hi"})
    length = whole.slot.count(0)
    inside = [token for token, number in zip(whole.tokens, whole.slot, strict=True) if number == 0]
    said = ids(dream, "hi", "<|im_end|>")
    assert inside == said + ids(dream, END) * (length - len(said))
    # outside of a chat there are no turns, and before the last slot none ends
    for text, name in (("{prompt}{a:8}", "a"), (dream.template + " so {b:4}", slot)):
        plain = mdsample.Template.parse(text)
        assert ids(dream, "<|im_end|>")[0] not in plain.content(name, "hi", dream.tokenizer)


def test_a_text_that_leaves_no_room_ends_where_the_slot_does(dream: Denoiser) -> None:
    text = ids(dream, "hi")
    assert filled_up(text, len(text), dream.tokenizer, turn=True) == text
    assert filled_up(text, len(text) + 1, dream.tokenizer, turn=True) == text + ids(dream, "<|im_end|>")


def test_ended_knows_the_turns_end_by_itself(dream: Denoiser) -> None:
    """Once `<|im_end|>` stands in the slot, its rest is filled with the end token, without a look."""
    template = mdsample.Template.parse(dream.template.replace("128", "6"))
    canvas = template.canvas(dream.tokenizer, [{"prompt": "the cat"}])
    first = int(np.flatnonzero(canvas.blank[0])[0])
    only = mdsample.parse("allow(['<|im_end|>'],slot='answer')+ended+left-to-right+top(1)")
    (row,) = mdsample.Sampler(only).run(dream, canvas).rows
    assert row.nfe == 1
    assert row.tokens[first:].tolist() == ids(dream, "<|im_end|>", *[END] * 5)
    assert row.text == ""


def test_choices_may_end_the_turn_or_not(dream: Denoiser) -> None:
    template = mdsample.Template.parse(dream.template.replace("128", "6"))
    row = mdsample.sample(
        dream, "the cat", template=str(template), policy="choices(['hi','Ann'])+temperature(1)+top(1)", seed=3
    )
    assert row.slots["answer"] in ("hi", "Ann")


def test_a_score_is_of_the_text_as_a_turn(dream: Denoiser) -> None:
    """The score of a choice is that of its tokens, the turn's end and the end tokens: by the chain over them."""
    template = mdsample.Template.parse(dream.template.replace("128", "8"))
    (scores,) = score(dream, template, [{"prompt": "the cat"}], "answer", ["hi"])
    said = ids(dream, "hi", "<|im_end|>")
    assert list(scores.best.tokens) == said + ids(dream, END) * (8 - len(said))


def test_a_trace_is_judged_by_the_text_as_a_turn(dream: Denoiser) -> None:
    template = mdsample.Template.parse(dream.template.replace("128", "8"))
    given = template.canvas(dream.tokenizer, [{"prompt": "the cat"}], given=[{"answer": "hi"}])
    # two slots: what stands in the first is judged by the text of the second
    text = str(template).replace("{answer:8}", "{reason:4}{answer:8}")
    two = mdsample.Template.parse(text)
    run = mdsample.Sampler("ar-med").run(dream, two.canvas(dream.tokenizer, [{"prompt": "the cat"}]))
    last = Trace.of(run).replay()
    assert _wanted(dream.tokenizer, last, 0, 1, "hi") == given.tokens[0, given.slot[0] == 0].tolist()
    assert _wanted(dream.tokenizer, last, 0, 0, "") == ids(dream, END) * 4


def test_several_ends_are_a_set(tmp_path: Path) -> None:
    folder = write_tokenizer(
        write_checkpoint(tmp_path / "m", config={"bos_token_id": None}), None, special=("<a>", "<b>")
    )
    facts = mdsample.inspect(folder)
    assert [token.text for token in facts.ends] == [END]
    tokenizer: Any = mdsample.load(folder, backend="reference").tokenizer
    a, b, end = tokenizer.special_id("<a>"), tokenizer.special_id("<b>"), tokenizer.end_id
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [a, end]}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": [end, b]}))
    facts = mdsample.inspect(folder)
    assert {token.text for token in facts.ends} == {"<a>", "<b>", END}
    assert facts.end is not None and facts.end.text == END


@pytest.mark.parametrize(("said", "words"), [("x", "one token id or several"), ([1, None], "one token id or several")])
def test_generation_settings_that_make_no_sense_are_refused(tmp_path: Path, said: object, words: str) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
    with pytest.raises(ModelError, match=words):
        mdsample.inspect(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 999}))
    with pytest.raises(ModelError, match=r"the end token is 999 by generation_config\.json"):
        mdsample.inspect(folder)


def test_a_chat_without_tokens_of_its_own_ends_no_turn(tmp_path: Path) -> None:
    folder = write_tokenizer(write_checkpoint(tmp_path / "m", config={"bos_token_id": None}), PLAIN)
    tokenizer = mdsample.load(folder, backend="reference").tokenizer
    assert tokenizer.turn_end == ()
    assert tokenizer.ends == {tokenizer.end_id}
