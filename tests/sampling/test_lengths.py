"""Slots of unknown length: each candidate is the run of its own template, and the best is kept by a known score."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chats import PLAIN, write_tokenizer
from checkpoints import write_checkpoint
from commands import is_refused
from counting import Counter
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main
from templates import LETTERS

import mdsample
from mdsample import testing
from mdsample.core.template import Slot, Template
from mdsample.errors import NoTextError, PolicyError, TemplateError
from mdsample.exact.joint import Joint
from mdsample.models.cache import Dual
from mdsample.policy.base import Policy
from mdsample.policy.complete import complete
from mdsample.policy.revise import Never
from mdsample.testing import ScriptedDenoiser

MODEL = ScriptedDenoiser(LETTERS, max_length=200)
LAYOUT = Template.parse("ab{prompt}{text:2-4}c{answer:1-2}d")
SMALL = Template.parse("ab{prompt}{text:2-3}c{answer:1-2}d")
POLICIES = testing.policies(("text", "answer"), vocab=6, texts=("a", "bc"))
LEAST = -1e4


def essence(row: mdsample.Row) -> object:
    return row.id, row.tokens.tolist(), row.slots, row.nfe, row.rounds, row.commits, row.outcome, row.tried


# the template


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_a_range_stands_for_its_lengths(first: int, more: int, blind: bool) -> None:
    text = f"x{{a:{first}-{first + more}{':blind' * blind}}}y{{b:2}}"
    template = Template.parse(text)
    assert str(template) == text
    candidates = template.candidates(LETTERS)
    assert [str(one) for one in candidates] == [
        f"x{{a:{n}{':blind' * blind}}}y{{b:2}}" for n in range(first, first + more + 1)
    ]
    assert candidates[0].candidates(LETTERS) == (candidates[0],)


def test_as_many_lengths_as_are_tried_are_taken() -> None:
    assert len(Template.parse("{a:1-8}{b:1-8}").candidates(LETTERS)) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a:6-1}", "goes from 6 to 1 positions; write the fewest first"),
        ("{a:3-3}", "one length as in {a:3}"),
        ("{a:0-3}", "needs a length of 1 or more"),
        ("{a:1-}", "needs a length of 1 or more, as in {a:16}"),
        ("{a:1-x}", "{a:1-6}, the fewest and the most positions"),
        ("{a:1-999999999}", "too long"),
        ("{a:1-100}", "have 100 lengths together, of {a:1-100} (100)"),
        ("{a:1-10}{b:1-7}", "70 lengths together, of {a:1-10} (10) and {b:1-7} (7), and each is a run of its own"),
    ],
)
def test_what_is_no_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as refused:
        Template.parse(text)
    assert message in str(refused.value)


def test_what_is_given_takes_the_length_of_its_text() -> None:
    for text, length in (("", 2), ("a", 2), ("abc", 3), ("abcd", 4)):
        (one,) = Template.parse("{text:2-4}").candidates(LETTERS, {"text": text})
        assert one == Template((Slot("text", length),))
    canvas = LAYOUT.canvas(LETTERS, [{"prompt": ""}], given=[{"text": "abc", "answer": "b"}])
    assert canvas.slot_length("text") == 3 and canvas.slot_length("answer") == 1
    with pytest.raises(TemplateError, match="has 4 positions, but what is given"):
        Template.parse("{text:2-4}").candidates(LETTERS, {"text": "abcde"})[0].row(LETTERS, {}, {"text": "abcde"})
    with pytest.raises(TemplateError, match=r"slot 'answer' has no one length, \{answer:1-2\}"):
        LAYOUT.canvas(LETTERS, [{"prompt": ""}], given=[{"text": "abc"}])


# the choice


@settings(max_examples=10, deadline=None)
@given(POLICIES, st.integers(0, 5), st.sampled_from([1, 3, 64]), st.sampled_from([None, "2"]))
def test_candidates_are_runs_of_their_templates_and_the_best_is_kept(
    policy: Policy, seed: int, batch_size: int, speculate: str | None
) -> None:
    prompts = ["b", "abc"]
    try:
        rows = mdsample.sample(
            MODEL, prompts, template=SMALL, policy=policy, seed=seed, batch_size=batch_size, speculate=speculate
        )
    except PolicyError as fault:
        # then no length will do
        for layout in SMALL.candidates(LETTERS):
            with pytest.raises(PolicyError):
                mdsample.sample(MODEL, prompts, template=layout, policy=policy, seed=seed)
        assert str(fault)
        return
    again = complete(policy)
    for number, row in enumerate(rows):
        tried: list[tuple[dict[str, int], mdsample.Row]] = []
        for layout in SMALL.candidates(LETTERS):
            lengths = {piece.name: piece.length for piece in layout.pieces if isinstance(piece, Slot)}
            try:
                one = mdsample.sample(
                    MODEL, [prompts[number]], template=layout, policy=policy, seed=seed, ids=[number],
                    speculate=speculate,
                )[0]  # fmt: skip
            except NoTextError:
                continue
            tried.append((lengths, one))
        assert [one.lengths for one in row.tried] == [lengths for lengths, _ in tried]
        assert [one.text for one in row.tried] == [one.text for _, one in tried]
        assert row.nfe == sum(one.nfe for one in row.tried)
        if len(tried) == 1:
            assert row.tried[0].score is None
            continue
        scores = [one.score for one in row.tried]
        chosen = tried[scores.index(max(scores))][1]  # pyright: ignore[reportArgumentType]
        assert (chosen.tokens.tolist(), chosen.commits) == (row.tokens.tolist(), row.commits)
        if not again.constraints and isinstance(again.revise, Never):
            # the run's own probabilities, at no further cost
            assert [one.nfe for one in row.tried] == [one.nfe for _, one in tried]
            for one, (_, whole) in zip(row.tried, tried, strict=True):
                logs = [math.log(max(c.probability, 1e-45)) for c in whole.commits if not c.by_rule]
                assert one.score == pytest.approx(sum(max(log, LEAST) for log in logs), abs=1e-4)


@pytest.mark.parametrize("policy", ["one-by-one", "left-to-right+top(1)", "random+top(1)+temperature(1)"])
@pytest.mark.parametrize("constraint", ["", "+ban([2])", "+characters('01', slot='text')"])
def test_the_score_is_the_joints_own_by_the_chain_rule(policy: str, constraint: str) -> None:
    """A joint over rows of 4: shorter rows are its first positions. Constraints do not change what a text is worth."""
    table = np.random.default_rng(7).dirichlet(np.full(3**4, 0.4)).reshape((3,) * 4)
    toy = Joint(table)
    for seed in range(4):
        row = mdsample.sample(toy, {}, template="{text:1-3}2", policy=policy + constraint, seed=seed)
        for one in row.tried:
            n = one.lengths["text"]
            tokens = [int(letter) for letter in one.text]
            after = table.sum(tuple(range(n + 1, 4)))
            conditional = after[..., 2] / after[..., 2].sum()
            assert one.score == pytest.approx(math.log(conditional[tuple(tokens[:n])]), abs=1e-5)


@pytest.mark.parametrize("revise", ["edit(0.01)", "renoise(6)", "below-confidence(0.5)"])
def test_the_score_is_that_of_the_text_that_stands(revise: str) -> None:
    """By the joint, in the order in which what stands was written; what it was written in place of does not count."""
    replaced = 0
    for seed in range(6):
        table = np.random.default_rng(seed).dirichlet(np.full(3**4, 0.3)).reshape((3,) * 4)
        policy = f"{revise}+top(2)+temperature(3)"
        row = mdsample.sample(Joint(table), {}, template="{text:2-3}2", policy=policy, seed=seed)
        replaced += len(row.commits) - len(row.written)
        known, score = {len(row.tokens) - 1: 2}, 0.0
        for _, group in itertools.groupby(sorted(row.written.values(), key=lambda c: c.step), lambda c: c.step):
            here = [(c.position, c.token) for c in group]
            given_ = table[tuple(slice(known[n], known[n] + 1) if n in known else slice(None) for n in range(4))]
            for place, token in here:
                score += math.log(np.take(given_, token, place).sum() / given_.sum())
            known |= dict(here)
        (found,) = [one.score for one in row.tried if one.text == row.text]
        assert found == pytest.approx(score, abs=1e-4)
    assert replaced


def test_a_language_with_one_text_is_not_taken_for_a_sure_one() -> None:
    """Each length has one text, so that the run itself is sure of all of them; the joint says which is the better."""
    table = np.zeros((3,) * 4)
    table[0, 2], table[1, 1, 2] = 0.1 / 9, 0.9 / 3  # 0 2 * *: 10 %, 1 1 2 *: 90 %, but 1 2: never
    table[1, 2], table[2, 2, 2, 2] = 0.5 / 9, 0.001
    row = mdsample.sample(Joint(table), {}, template="{text:1-2}2", policy="med+regex('0|11', slot='text')")
    assert [one.text for one in row.tried] == ["02", "112"]
    scores = {one.lengths["text"]: one.score for one in row.tried}
    two = table.sum((2, 3))[:, 2]
    three = table.sum(3)[..., 2]
    assert scores[1] == pytest.approx(math.log(two[0] / two.sum()), abs=1e-5)
    assert scores[2] == pytest.approx(math.log(three[1, 1] / three.sum()), abs=1e-5)
    assert row.slots["text"] == "11"


def test_where_one_length_explains_the_text_after_it_is_found() -> None:
    """Rows that are all but certain: whatever the length, the model knows which one it is."""
    for right in (1, 2, 3):
        table = np.full((3,) * 4, 1e-4)
        table[(*[0] * right, 2, *[1] * (3 - right))] = 1
        row = mdsample.sample(Joint(table), {}, template="{text:1-3}2", policy="random+top(1)")
        assert row.tried[right - 1].text == "0" * right + "2"
        assert row.slots["text"] == "0" * right


# languages, caches, errors


def test_a_length_without_a_text_is_no_candidate_and_none_is_refused_before_a_pass() -> None:
    policy = "med+regex('(ab)+', slot='text', end='never')"
    row = mdsample.sample(MODEL, "b", template="{prompt}{text:1-5}c", policy=policy)
    assert [one.lengths for one in row.tried] == [{"text": 2}, {"text": 4}] and row.slots["text"] in ("ab", "abab")
    row = mdsample.sample(MODEL, "b", template="{prompt}{text:1-3}c", policy="choices(['a', 'bcd'], slot='text')")
    assert [one.lengths for one in row.tried] == [{"text": 3}] and row.tried[0].score is None
    counter = Counter(MODEL)
    with pytest.raises(NoTextError, match="at no length of row 0 there is a text: no text of the language of slot"):
        mdsample.sample(counter, "b", template="{prompt}{text:1-2}c", policy="regex('abcd', slot='text')")
    with pytest.raises(NoTextError, match=r"^no text of the language of slot"):
        mdsample.sample(counter, "b", template="{prompt}{text:3}c", policy="regex('abcd', slot='text', end='never')")
    with pytest.raises(PolicyError, match="there is no slot 'nothing'"):
        mdsample.sample(counter, "b", template="{prompt}{text:1-2}c", policy="regex('abcd', slot='nothing')")
    with pytest.raises(TemplateError, match="takes at most 200"):
        mdsample.sample(counter, "b", template="{prompt}{text:190-201}c", policy="med")
    assert not counter.rows


def test_every_pass_is_counted() -> None:
    for policy in (
        "one-by-one",
        "med+regex('[a-c]+', slot='text')",
        "one-by-one+cfg(1)",
        "one-by-one+ban(['a'])+cfg(1)",
        "med+ban(['a'])+credit",
        "med+ban(['a'])+annealing",
    ):
        counter = Counter(MODEL)
        rows = mdsample.sample(counter, ["b", "abc"], template=LAYOUT, policy=policy, batch_size=3)
        assert sum(row.nfe for row in rows) == counter.rows * (2 if "cfg" in policy else 1)
        assert all(row.rounds <= row.nfe for row in rows)


def test_an_approximate_cache_does_not_read_again() -> None:
    model = ScriptedDenoiser(LETTERS, cache=Dual())
    assert len(mdsample.sample(model, "b", template=LAYOUT, policy="med").tried) == 6
    with pytest.raises(PolicyError, match="the cache 'dual', which is approximate"):
        mdsample.sample(model, "b", template=LAYOUT, policy="med+ban(['a'])")


def test_random_tokens_do_not_tell_lengths_apart() -> None:
    model = Counter(ScriptedDenoiser(LETTERS, noise="uniform"))
    with pytest.raises(PolicyError, match="depends on the random tokens that it is shown there; write one length"):
        mdsample.sample(model, "b", template=LAYOUT, policy="med")
    assert not model.rows


# every door


def test_watch_ends_with_the_best() -> None:
    best = mdsample.sample(MODEL, "b", template=LAYOUT, policy="med+temperature(1)", seed=3)
    steps = list(mdsample.watch(MODEL, "b", template=LAYOUT, policy="med+temperature(1)", seed=3))
    assert essence(steps[-1].row) == essence(best) and len(steps) > len(best.tried)
    assert all(not step.row.tried for step in steps[:-1])


def test_token_ids_given_slots_and_streams() -> None:
    policy = "one-by-one"
    by_text = mdsample.sample(MODEL, "b", template=LAYOUT, policy=policy)
    assert essence(mdsample.sample(MODEL, LETTERS.encode("abb"), template=LAYOUT, policy=policy)) == essence(by_text)
    row = mdsample.sample(MODEL, "b", template=LAYOUT, policy=policy, given={"text": "abc"})
    assert row.slots["text"] == "abc" and [one.lengths["text"] for one in row.tried] == [3, 3]
    streamed = mdsample.stream(MODEL, ["b", "a"], template=LAYOUT, policy=policy, batch_size=2)
    alone = mdsample.sample(MODEL, ["b", "a"], template=LAYOUT, policy=policy)
    assert sorted(map(essence, streamed), key=str) == sorted(map(essence, alone), key=str)


def test_a_chat_may_have_one(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", config={"max_sequence_length": 400})
    write_tokenizer(folder, PLAIN)
    row = mdsample.sample(
        mdsample.load(folder),
        [{"role": "user", "content": "the cat"}],
        template="{prompt}{answer:1-3}",
        policy="one-by-one",
    )
    assert [one.lengths["answer"] for one in row.tried] == [1, 2, 3]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    model: Any = ScriptedDenoiser(mdsample.load("tiny-gsm", "reference").tokenizer)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("mdsample.backend.load.load", lambda *_, **__: model)  # pyright: ignore[reportUnknownLambdaType]
    return ["-t", "{prompt}{answer:1-3} coins", "-p", "one-by-one"]


def test_commands(job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "Ann", *job, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["template"] == "{prompt}{answer:1-3} coins" and record["nfe"] == 6
    assert [one["lengths"] for one in record["tried"]] == [{"answer": 1}, {"answer": 2}, {"answer": 3}]
    assert main(["run", "Ann", *job]) == 0
    assert "(log p" in capsys.readouterr().out
    is_refused(["run", "Ann", *job, "--trace", str(tmp_path / "t")], "--trace records one canvas", capsys)
    is_refused(["run", "Ann", *job, "--watch", "answer"], "slot 'answer' has no one length", capsys)
    is_refused(["score", "Ann", *job[:2], "--choices", "1|2", "--slot", "answer"], "has no one length", capsys)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Ann"}\n{"prompt": "Ben"}\n')
    command = ["run", "-i", str(rows), *job, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    whole = (tmp_path / "out").read_bytes()
    (tmp_path / "out").write_bytes(whole[: len(whole) // 2])
    assert main(command) == 0
    assert sorted((tmp_path / "out").read_bytes().splitlines()) == sorted(whole.splitlines())
    is_refused([*command[:3], "-t", "{prompt}{answer:1-2} coins", *job[2:], *command[-2:]], "another job", capsys)
