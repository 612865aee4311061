"""The life of a position: edits, renoised windows and uniform noise, against plain loops, exact laws and promises."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdsample
from mdsample.core.arrays import Bools, Ints
from mdsample.core.canvas import Canvas
from mdsample.core.rows import Rows
from mdsample.core.uniforms import Uniforms, row_key
from mdsample.exact import Joint, law
from mdsample.exact.uniform import Noised
from mdsample.models.denoiser import Denoiser, Query
from mdsample.policy.complete import complete
from mdsample.policy.settings import part
from mdsample.sampling.life import final
from mdsample.sampling.result import Result
from mdsample.testing import ScriptedDenoiser, Symbols, policies, promises

TEXT = "{answer:9}"


class UniformToy(ScriptedDenoiser):
    """The toy, shown random tokens in blanks; it notes what it was shown."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, noise="uniform")
        self.queries: list[Query] = []

    def predict(self, query: Query) -> Any:
        self.queries.append(query)
        return super().predict(query)


def canvas(model: Denoiser, text: str = TEXT, rows: int = 1) -> Canvas:
    texts: list[dict[str, str]] = [{}] * rows
    return mdsample.Template.parse(text).canvas(model.tokenizer, texts)


def run(policy: str, model: Denoiser, text: str = TEXT, rows: int = 1, seed: int = 0) -> Result:
    return promises.run(mdsample.parse(policy), model, canvas(model, text, rows), seed)


def argmaxes(model: ScriptedDenoiser, tokens: list[int], policy: str) -> tuple[np.ndarray, np.ndarray]:
    """The most probable token everywhere and its probability, by asking about every position."""
    plan = mdsample.Sampler(policy).plan(model, canvas(model))
    every = np.ones((1, len(tokens)), np.bool_)
    rows = Rows([(0, 0)], np.zeros(1, np.int32))
    query = Query(np.array([tokens], np.int32), every, every, ~every, plan.restriction, mdsample.NoGuide(), rows)
    said = model.predict(query).marginals
    return said.token[0], said.confidence[0]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("threshold", "edit", "after"), [(0.5, 0.0, 16), (0.7, 0.5, 16), (0.3, 0.2, 5), (0.3, 0.0, 0)])
def test_edits_are_the_joint_threshold(seed: int, threshold: float, edit: float, after: int) -> None:
    model = ScriptedDenoiser(Symbols(5), seed, 2.0)
    mask = model.tokenizer.mask_id
    text = f"blocks(3)+confidence+above-confidence({threshold})+edit({edit},after={after})"
    row = run(text, model).rows[0]
    tokens, passes = [mask] * 9, 0
    for start in (0, 3, 6):
        beyond, seen = 0, list[list[int]]()
        while True:
            filling = mask in tokens[start : start + 3]
            if not filling and beyond == after:
                break
            passes += 1
            best, sure = argmaxes(model, tokens, text)
            here = range(start, start + 3)
            blanks = [i for i in here if tokens[i] == mask]
            new = [i for i in blanks if sure[i] > threshold] or sorted(blanks, key=lambda i: -sure[i])[:1]
            new += [i for i in here if tokens[i] != mask and best[i] != tokens[i] and sure[i] > np.float32(edit)]
            if not filling:
                beyond += 1
                seen.append(list(tokens))
            for i in new:
                tokens[i] = int(best[i])
            if not filling and not new:
                break
            if tokens in seen and (after - beyond) % (len(seen) - seen.index(tokens)) == 0:
                break  # the rest of the passes would come back to this text
    assert row.tokens.tolist() == tokens
    assert row.nfe == passes


def test_texts_that_take_turns_end_where_all_passes_would() -> None:
    ended = 0
    for seed in range(14):
        model = ScriptedDenoiser(Symbols(4), seed, 4.0)
        short, long = (run(f"whole+top(3)+edit(0,after={after})", model).rows[0] for after in (14, 1))
        # without the memory of earlier texts: one pass at a time, all of them
        text = long.tokens.tolist()
        for _ in range(13):
            text = argmaxes(model, text, "edit")[0].tolist()
        assert short.tokens.tolist() == text
        ended += short.nfe < 3 + 14 and np.not_equal(argmaxes(model, text, "edit")[0], text).any()
    assert ended > 2


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("kind", [ScriptedDenoiser, UniformToy])
def test_renoising_is_its_definition(kind: type[ScriptedDenoiser], times: int) -> None:
    """Entropy-ordered prefix of all positions, drawn anew; the rest noise; at the end the argmax."""
    model = kind(Symbols(5), 3, 1.5)
    mask, size = model.tokenizer.mask_id, model.vocab_size
    policy = "whole+entropy-bound(0.9)+temperature+renoise(6)+annealing(0.8,end=0.4,steps=6)"
    policy += f"+converged(1.5,passes={times})"
    for seed in range(6):
        found = run(policy, model, seed=seed).rows[0]
        plan = mdsample.Sampler(policy).plan(model, canvas(model))
        every, key = np.ones((1, 9), np.bool_), [row_key(seed, 0)]
        tokens, before, step = np.full(9, mask, np.int32), list[list[int]](), 0
        for step in range(6):
            uniforms = Uniforms(key, np.array([step], np.int32), 9)
            shown = tokens
            if model.noise == "uniform":
                shown = np.where(tokens == mask, (uniforms.at("noise")[0] * size).astype(np.int32), tokens)
            rows = Rows([(0, 0)], np.zeros(1, np.int32))
            t = np.float32(0.4 + 0.4 * (1 - step / 6))
            scores = model.predict(
                Query(shown[None], every, every, ~every, plan.restriction, mdsample.Cooling(float(t)), rows)
            )
            said = scores.marginals
            entropy = said.entropy[0].astype(np.float64)
            order = np.argsort(entropy, kind="stable")
            kept = order[np.cumsum(entropy[order]) - entropy[order] <= 0.9].astype(np.int32)
            drawn, _ = scores.draw(0 * kept, kept, uniforms.at("draw")[0, kept], mdsample.Temperature(1.0))
            tokens = np.full(9, mask, np.int32)
            tokens[kept] = drawn
            before.append(said.token[0].tolist())
            if step >= times and entropy.mean() < 1.5 and before[-1 - times :] == before[-1:] * (times + 1):
                break
        assert found.tokens.tolist() == before[-1]
        assert found.nfe == step + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        "whole+top(2)+temperature+edit(0.3)",
        "blocks(2)+top(2)+temperature+edit(0,after=3)",
        "blocks(2)+entropy-bound(0.3)+temperature+renoise(3)+converged(0.5)",
        "whole+random+linear-time(3)+temperature+renoise(2)",
        "top(2)+temperature+converged(0.8)",
    ],
)
@pytest.mark.parametrize("noised", [False, True])
def test_runs_follow_the_law(policy: str, noised: bool) -> None:
    table = np.random.default_rng(1).dirichlet(np.full(8, 0.5)).reshape(2, 2, 2)
    if noised and "converged(0.5)" in policy:
        pytest.skip("what stood before is kept apart for every noise: too many states")
    model = Noised(Joint(table)) if noised else Joint(table)
    exact = law(mdsample.parse(policy), model)
    rows = mdsample.Sampler(policy).run(model, model.canvas(1500)).rows
    counts = Counter(tuple(row.tokens.tolist()) for row in rows)
    assert set(counts) <= set(exact.outcomes)
    assert sum(abs(counts[row] / 1500 - p) for row, p in exact.outcomes.items()) / 2 < 0.05
    assert exact.expected_nfe == pytest.approx(float(np.mean([row.nfe for row in rows])), abs=0.1)
    assert exact.kl_bound == np.inf and exact.tv_bound == 1


def test_the_posterior_of_a_noised_joint_is_bayes() -> None:
    table = np.random.default_rng(2).dirichlet(np.ones(4)).reshape(2, 2)
    model = Noised(Joint(table), (0.4,))
    keep = 0.6 + 0.4 / 3
    for shown in np.ndindex(3, 3):
        likely = [[keep if a == b else 0.4 / 3 for b in shown] for a in range(2)]
        weight = np.array([table[i, j] * likely[i][0] * likely[j][1] for i in range(2) for j in range(2)])
        found = model.posterior(np.array([shown], np.int32), np.full((1, 2), -1, np.int32))[0]
        np.testing.assert_allclose(found, weight / weight.sum(), atol=1e-12)
    with pytest.raises(ValueError, match="levels of noise"):
        Noised(Joint(table), ())


def test_noise_is_the_rows_own_and_stands_in_blanks_only() -> None:
    model = UniformToy(Symbols(6), 1, 2.0)
    text = "ab{answer:12}"
    run("blocks(6)+top(2)", model, text, rows=3)
    shown = [query.tokens.copy() for query in model.queries]
    assert len(shown) == 6
    for tokens in shown:
        assert (tokens[:, :2] == [0, 1]).all()
    # new in every step, another one in every row, all tokens of the vocabulary
    assert (shown[0][:, 10:] != shown[1][:, 10:]).any() and (shown[0][0] != shown[0][1]).any()
    drawn = np.concatenate([tokens[:, 8:].reshape(-1) for tokens in shown[:3]])
    assert drawn.min() >= 0 and drawn.max() == model.vocab_size - 1
    model.queries.clear()
    run("blocks(6)+top(2)", model, text)
    assert (model.queries[0].tokens == shown[0][:1]).all()


def test_a_mask_token_in_fixed_text_is_no_blank() -> None:
    model = UniformToy(Symbols(6), 1, 2.0)
    mask = model.tokenizer.mask_id
    here = Canvas.of_rows([[mask, 0, mask, mask]], [[-1, -1, 0, 0]], ("answer",), mask)
    promises.keeps_its_promises(mdsample.parse("top(1)"), model, here)
    assert all(query.tokens[0, 0] == mask for query in model.queries)


def test_windows_wait_and_the_final_text_grows() -> None:
    model = ScriptedDenoiser(Symbols(6), 3, 3.0)
    sampler = mdsample.Sampler("blocks(3)+top(3)+edit(0)")
    whole, grown = complete(sampler.policy), list[int]()
    for state, event in sampler.steps(model, canvas(model)):
        settled = final(whole, state)[0]
        grown.append(int(settled.sum()))
        assert settled.tolist() == sorted(settled.tolist(), reverse=True), "windows from left to right"
        assert (state.blank | state.held | settled[None]).all()
        assert bool(len(event.settled)) == (grown[-1] > ([0, *grown])[-2]) or state.done
    assert grown == sorted(grown) and set(grown) <= {0, 3, 6, 9}


@pytest.mark.parametrize("policy", ["blocks(5)+edit(0)+ended", "blocks(5)+temperature(2)+renoise(3)+ended"])
def test_an_end_that_may_be_rewritten_ends_nothing(policy: str) -> None:
    model = ScriptedDenoiser(Symbols(2), 5, 1.0)
    seen = 0
    for seed in range(3):
        sampler = mdsample.Sampler(policy, seed=seed)
        for state, event in sampler.steps(model, canvas(model, "{answer:15}", 2)):
            ends = (state.tokens == model.tokenizer.end_id) & state.held
            seen += int(ends.any())
            for row in event.row[event.by_rule].tolist():
                settled = (state.tokens[row] == model.tokenizer.end_id) & ~state.held[row] & ~state.blank[row]
                assert settled.any()
                assert not state.held[row].any()
    assert seen


@pytest.mark.parametrize("noise", ["mask", "uniform"])
@pytest.mark.parametrize("policy", ["edit(0)", "temperature+renoise(4)", "temperature+renoise(3)+early-exit(6)"])
def test_languages_hold(policy: str, noise: str) -> None:
    model = (UniformToy if noise == "uniform" else ScriptedDenoiser)(Symbols(6), 3, 1.0)
    whole = f"blocks(4)+top(2)+{policy}+regex('(ab|cd)+e*',slot='answer')"
    for row in run(whole, model, "f{text:5}{answer:6}", rows=4).rows:
        answer = "".join(Symbols(6).decode([t]) for t in row.tokens[6:].tolist())
        assert re.fullmatch("(ab|cd)+e*", answer), answer
        assert row.unfilled == 0 or row.outcome.name == "early-exit"


def test_what_no_bound_covers_has_none() -> None:
    model, noisy = ScriptedDenoiser(Symbols(6), 3, 1.0), UniformToy(Symbols(6), 3, 1.0)
    for kind, policy in ((model, "edit(0)"), (model, "temperature+renoise(3)"), (noisy, "top(2)")):
        row = run(policy, kind, rows=1).rows[0]
        assert row.to_dict()["error_bound"] is None and row.to_dict()["tv_bound"] is None
    assert run("top(2)", model).rows[0].to_dict()["error_bound"] is not None


def test_a_trace_says_what_the_noise_was(tmp_path: Any) -> None:
    result = run("blocks(3)+temperature+renoise(3)", UniformToy(Symbols(6), 3, 1.0), rows=2)
    mdsample.Trace.of(result).save(tmp_path / "t")
    trace = mdsample.Trace.load(tmp_path / "t")
    assert trace.noise == "uniform" and (trace.replay().rewritten == result.state.rewritten).all()
    text = (tmp_path / "t").read_text()
    (tmp_path / "t").write_text(text.replace('"noise": "uniform"', '"noise": "loud"'))
    with pytest.raises(mdsample.TraceError, match="noise is 'loud'"):
        mdsample.Trace.load(tmp_path / "t")


POLICIES = [
    *("llada21-speed", "llada21-quality", "diffusion-gemma(0.5,passes=5,size=4)", "edit(0.2)+temperature"),
    *("blocks(4)+top(2)+temperature+renoise(3)+repetition(2)", "converged(1.5)", "med+annealing(2,end=0.5,steps=4)"),
    *("temperature+renoise(4)+lookahead(3)", "edit(0)+klass", "top(2)+remdm-remask(eta=0.5,steps=6)", "early-exit(5)"),
    "top(3)+temperature(3)+remdm-remask(eta=0.9,steps=4)+ended",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ScriptedDenoiser, UniformToy])
@pytest.mark.parametrize("policy", POLICIES)
def test_guesses_change_nothing(policy: str, kind: type[ScriptedDenoiser]) -> None:
    model = kind(Symbols(6), 3, 2.0)
    here = canvas(model, "a{text:6}b{answer:5}", 2)
    promises.keeps_its_promises(mdsample.parse(policy), model, here)
    promises.speculation_changes_nothing(mdsample.parse(policy), model, here, speculate="3x2")


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(policies(("answer",), vocab=6), st.integers(0, 9))
def test_every_policy_keeps_its_promises_under_uniform_noise(policy: mdsample.Policy, seed: int) -> None:
    model = UniformToy(Symbols(6), seed, 3.0)
    promises.keeps_its_promises(policy.without("guide"), model, canvas(model, "ab{text:5}c{answer:3}", 2), seed)


def test_repetition_lowers_the_token_on_the_left() -> None:
    model = ScriptedDenoiser(Symbols(6), 3, 0.0)
    plain, lowered = (run(f"left-to-right+{guide}", model).rows[0].tokens.tolist() for guide in ("none", "repetition"))
    assert plain == [0] * 9
    assert all(a != b for a, b in itertools.pairwise(lowered))


def test_cfg_is_refused_where_there_are_no_masks() -> None:
    with pytest.raises(mdsample.PolicyError, match="cfg hides the fixed text behind mask tokens"):
        run("cfg", UniformToy(Symbols(6), 3, 0.0))


def test_a_tv_budget_does_not_go_with_converged() -> None:
    with pytest.raises(mdsample.PolicyError, match="fills all that is left"):
        run("tv-budget+temperature+converged", ScriptedDenoiser(Symbols(6), 3, 1.0))


def test_texts_are_not_scored_under_noise() -> None:
    with pytest.raises(mdsample.ScoreError, match="trained on random tokens"):
        template = mdsample.Template.parse("{answer:3}")
        mdsample.score(UniformToy(Symbols(6), 3, 1.0), template, [{}], "answer", ["abc"])


@pytest.mark.parametrize("policy", ["blocks(4)+renoise(1)", "blocks(4)+edit(0,after=0)", "blocks(4)+converged(9)"])
def test_what_a_row_leaves_with_is_what_its_stop_says(policy: str) -> None:
    # the slot lies beyond the window that would end in the same pass
    row = run(f"{policy}+early-exit(100)", ScriptedDenoiser(Symbols(6), 3, 1.0), "{text:4}{answer:3}").rows[0]
    assert row.outcome.name == "early-exit" and row.nfe == 1
    assert not row.blank[4:].any() and row.blank[:4].any()


@part
class Endless(mdsample.Holding):
    """Holds for ever."""

    name: ClassVar[str] = "endless"
    redraws: ClassVar[bool] = False

    def most(self, size: Ints) -> Ints:
        return size // 3 + 3

    def settles(self, view: mdsample.View, chosen: Bools) -> Bools:
        return np.zeros(len(chosen), np.bool_)


@part
class Again(Endless):
    """Draws for ever."""

    name: ClassVar[str] = "again"
    redraws: ClassVar[bool] = True


@pytest.mark.parametrize("endless", [Endless, Again])
def test_the_loop_ends_a_window_that_its_part_would_not(endless: type[Endless]) -> None:
    policy = mdsample.Blocks(6) + mdsample.Top(1) + endless()
    model = ScriptedDenoiser(Symbols(6), 3, 1.0)
    result = promises.keeps_its_promises(policy, model, canvas(model, "{answer:12}", 2))
    assert [(row.nfe, row.unfilled) for row in result.rows] == [(10, 0)] * 2


def test_what_is_written_stays_when_its_row_leaves() -> None:
    model, left = ScriptedDenoiser(Symbols(6), 3, 1.0), 0
    for seed in range(8):
        sampler = mdsample.Sampler("blocks(4)+top(2)+temperature+renoise(9)+early-exit(4.9)", seed=seed)
        here = canvas(model, "{text:12}{answer:3}", 2)
        before = sampler.start(model, here)
        for state, event in sampler.steps(model, here):
            for row in event.left.tolist():
                assert not before.blank[row][before.held[row]].any() and not state.blank[row][before.held[row]].any()
                left += int(before.held[row].any())
            before = state
    assert left


def test_an_edit_needs_more_than_its_probability() -> None:
    model = ScriptedDenoiser(Symbols(5), 1, 2.0)

    def edits(probability: float) -> np.ndarray:
        """How probable the tokens are that the second step writes in place of others."""
        sampler = mdsample.Sampler(mdsample.parse("whole+top(3)") + mdsample.Edit(probability))
        _, (_, event) = itertools.islice(sampler.steps(model, canvas(model)), 2)
        return event.confidence[3:]

    least = edits(0).min()
    assert len(edits(0)) == len(edits(float(np.nextafter(least, np.float32(0))))) == len(edits(float(least))) + 1


def test_a_row_does_not_leave_while_its_slot_may_still_change() -> None:
    model = ScriptedDenoiser(Symbols(6), 3, 2.0)
    free, waiting = (
        run(f"whole+top(3)+edit(0,after=5){stop}", model).rows[0] for stop in ("", "+early-exit(0.000001)")
    )
    assert free.nfe > 3 and waiting.tokens.tolist() == free.tokens.tolist() and waiting.nfe == free.nfe


def test_noise_on_the_left_is_nothing_to_repeat() -> None:
    rows = run("right-to-left+repetition(3)", UniformToy(Symbols(6), 3, 0.0), rows=4).rows
    assert all(row.tokens.tolist() == [0] * 9 for row in rows)


@pytest.mark.parametrize("policy", ["whole+confidence+top(1)", "whole+top(1)+annealing(9,end=0.1,steps=5)+temperature"])
def test_a_guess_is_of_a_text_and_of_a_step(policy: str) -> None:
    for seed in range(6):
        model = UniformToy(Symbols(3), seed, 1.0)
        here = canvas(model, "{answer:7}", 2)
        promises.speculation_changes_nothing(mdsample.parse(policy), model, here, speculate="4x4")


def test_the_first_place_of_a_models_block_repeats_nothing() -> None:
    model = ScriptedDenoiser(Symbols(6), 3, 0.0)
    model.about = attrs.evolve(model.about, block=3)
    assert run("left-to-right+repetition", model).rows[0].tokens.tolist() == [0, 1, 0] * 3


@pytest.mark.parametrize("text", ["edit(0.1)", "edit(0.1)+top(3)", "renoise(5)", "klass", "converged+edit(0.3)"])
def test_nothing_is_predicted_twice(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What evidence has seen of a row is kept from step to step, where it saw nothing too."""
    model, asked = ScriptedDenoiser(Symbols(5), 1, 1.0), list[int]()
    own = ScriptedDenoiser.predict
    monkeypatch.setattr(
        ScriptedDenoiser, "predict", lambda self, query: (asked.append(len(query.tokens)), own(self, query))[1]
    )
    mask = model.tokenizer.mask_id
    canvas = Canvas.of_rows([[0, *[mask] * 8]], [[-1, *[0] * 8]], ("answer",), mask)
    (row,) = mdsample.Sampler(mdsample.parse(text), seed=3).run(model, canvas).rows
    assert sum(asked) == row.nfe
