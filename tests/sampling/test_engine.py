"""The engine: rows are filled a fixed number at a time, and nothing about that shows in the results."""

from __future__ import annotations

import tracemalloc

import pytest
from checkpoints import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.errors import PolicyError, TemplateError
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.base import Policy
from mdsample.policy.parsing import parse
from mdsample.sampling.engine import Engine, fill
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.sampling.ready import Watch
from mdsample.sampling.row import Row, pieces
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.state import State
from mdsample.testing import ScriptedDenoiser, Symbols, policies

TEMPLATE = Template.parse("Q {prompt} R{reasoning:7} A{answer:3}")
PROMPTS = ["", "the cat", "Ann has 12 coins", "the mat sat on the cat" * 2, "x", "Ben has 7 coins and the cat", "7"]
POLICIES = ["one-by-one", "med(3)+early-exit(6)+temperature(1.5)", "random+linear-time(4)+temperature(1)", "blocks(4)"]


class Spy(Denoiser):
    """A model that takes down what it was asked."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.about)
        self.inner, self.asked = inner, list[Query]()

    def predict(self, query: Query) -> Prediction:
        self.asked.append(query)
        return self.inner.predict(query)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load(write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", config={"max_sequence_length": 128}))


def prepared(model: Denoiser, prompts: list[str] = PROMPTS) -> list[Prepared]:
    return [prepare(model, TEMPLATE, f"row {i}", {"prompt": prompt}) for i, prompt in enumerate(prompts)]


def essence(row: Row) -> object:
    commits = [(c.step, c.position, c.token, c.by_rule) for c in row.commits]
    return row.id, row.text, row.slots, row.nfe, row.steps, row.outcome, row.filled, row.unfilled, commits


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12)
@given(data=st.data())
def test_results_do_not_depend_on_batches_chunks_or_order(model: Denoiser, policy: str, data: st.DataObject) -> None:
    sampler = Sampler(parse(policy), seed=3)
    rows = prepared(model)
    texts = [{"prompt": prompt} for prompt in PROMPTS]
    together = sampler.run(model, TEMPLATE.canvas(model.tokenizer, texts, [row.id for row in rows]))
    expected = {row.id: essence(row) for row in together.rows}
    chosen = data.draw(st.permutations(rows))
    options = {"batch_size": data.draw(st.integers(1, 9)), "chunk_size": data.draw(st.none() | st.integers(1, 9))}
    found = list(fill(sampler, model, TEMPLATE.slots, chosen, **options))
    assert {row.id: essence(row) for row in found} == expected
    assert len(found) == len(rows)


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_a_row_that_is_done_frees_its_place(model: Denoiser, size: int) -> None:
    spy = Spy(model)
    rows = list(fill(Sampler(parse(POLICIES[1])), spy, TEMPLATE.slots, prepared(model), batch_size=size))
    passes = [row.nfe for row in rows]
    assert len(set(passes)) > 1, "the rows should take different numbers of passes"
    assert all(len(query.tokens) <= size for query in spy.asked)
    # places stand idle only at the end, when fewer rows are left than places
    assert sum(len(query.tokens) for query in spy.asked) == sum(passes)
    assert len(spy.asked) <= -(-sum(passes) // size) + max(passes)
    short = [query for query in spy.asked if len(query.tokens) < min(size, len(rows))]
    assert spy.asked[len(spy.asked) - len(short) :] == short


def test_neighbours_in_length_share_a_pass_and_none_is_padded_further(model: Denoiser) -> None:
    spy = Spy(model)
    list(fill(Sampler(parse("steps(2)")), spy, TEMPLATE.slots, prepared(model), batch_size=2))
    for query in spy.asked:
        assert query.tokens.shape[1] == query.valid.sum(1).max()
    longest = [query.tokens.shape[1] for query in spy.asked]
    assert longest == sorted(longest, reverse=True)


def test_rows_of_other_constraints_share_a_pass() -> None:
    model = ScriptedDenoiser(Symbols(6))
    layout = Template.parse("ab{reasoning:5}{answer:3}")
    policies = [
        f"med+temperature(1){more}" for more in ("", "+ban(['a','b'])", "+allow(['c','d'])", "+ban(['e'])+ban(['f'])")
    ]
    spy, row = Spy(model), prepare(model, layout, 0, {})
    engine = Engine(spy)
    numbers = [engine.add([row], Sampler(policy), layout.slots)[0] for policy in policies]
    found = {}
    while engine.step():
        found |= dict(engine.finished())
    assert len(spy.asked) == max(row.nfe for row in found.values())
    for number, policy in zip(numbers, policies, strict=True):
        (alone,) = fill(Sampler(policy), model, layout.slots, [row])
        assert essence(found[number]) == essence(alone)


def test_rows_come_as_soon_as_they_are_done(model: Denoiser) -> None:
    spy = Spy(model)
    rows = fill(Sampler(parse("budget(2)+top(1)")), spy, TEMPLATE.slots, prepared(model), batch_size=1)
    for number, _ in enumerate(rows, 1):
        assert len(spy.asked) == 2 * number


def test_on_step_sees_every_state_of_a_chunk(model: Denoiser) -> None:
    seen: list[State] = []
    list(fill(Sampler(parse("steps(3)")), model, TEMPLATE.slots, prepared(model), chunk_size=4, on_step=seen.append))
    assert sum(state.done for state in seen) == 2
    # seven rows have room in one batch, so both chunks take part in every step
    assert sorted(len(state.canvas) for state in seen) == [3] * 4 + [4] * 4


def test_no_rows_and_no_places(model: Denoiser) -> None:
    assert list(fill(Sampler(parse("med")), model, TEMPLATE.slots, [])) == []
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        list(fill(Sampler(parse("med")), model, TEMPLATE.slots, prepared(model), batch_size=0))


def test_what_does_not_fit_is_refused_before_the_first_pass(model: Denoiser) -> None:
    spy = Spy(model)
    with pytest.raises(PolicyError, match="there is no such slot; slots here: reasoning, answer"):
        list(fill(Sampler(parse("early-exit(slot='x')")), spy, TEMPLATE.slots, prepared(model)))
    assert not spy.asked
    with pytest.raises(TemplateError, match="takes at most 128: shorten the text or the slots"):
        prepare(model, TEMPLATE, 0, {"prompt": "cat " * 200})
    with pytest.raises(TemplateError, match="surrogate"):
        prepare(model, TEMPLATE, 0, {"prompt": "\ud800"})


@given(st.text() | st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "replace")))
def test_pieces_are_the_text(model: Denoiser, text: str) -> None:
    tokens = model.tokenizer.encode(text)
    written = pieces(model.tokenizer, tokens)
    assert len(written) == len(tokens)
    assert "".join(written) == model.tokenizer.decode(tokens)


@given(st.lists(st.integers(0, 299), max_size=12))
def test_pieces_of_any_tokens_are_the_text(model: Denoiser, tokens: list[int]) -> None:
    tokens = [token for token in tokens if token < model.tokenizer.size]
    assert "".join(pieces(model.tokenizer, tokens)) == model.tokenizer.decode(tokens)


@pytest.mark.slow
def test_memory_stays_flat_over_10_000_rows() -> None:
    model = ScriptedDenoiser(Symbols(5), max_length=16)
    mask = model.tokenizer.mask_id
    rows = [
        Prepared(i, (0,) * n + (mask,) * 2, (-1,) * n + (0, 0), (False,) * n + (True,) * 2)
        for i, n in ((i, 1 + i % 5) for i in range(10_000))
    ]
    sampler = Sampler(parse("one-by-one"))

    def peak(count: int) -> int:
        tracemalloc.start()
        done = sum(1 for _ in fill(sampler, model, ("text",), rows[:count], batch_size=32))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert done == count
        return most

    peak(100)  # whatever is made once
    # a chunk holds 512 rows; beyond the list of ids nothing may grow with their number
    assert peak(10_000) < 1.5 * peak(1_024)


# rows of different policies share a forward pass

MIXED = policies(("text",), vocab=6, blanks=5, texts=("abc", "bd"))


@pytest.mark.slow
@settings(max_examples=100)
@given(st.lists(st.tuples(MIXED, st.integers(0, 3)), min_size=2, max_size=5), st.integers(1, 6), st.data())
def test_a_row_equals_itself_alone_among_neighbours_of_other_policies(
    added: list[tuple[Policy, int]], batch_size: int, data: st.DataObject
) -> None:
    model = ScriptedDenoiser(Symbols(6), 3, 2.0)
    mask = model.tokenizer.mask_id

    def rows(number: int) -> list[Prepared]:
        # the same ids under every policy, and rows of unequal length
        length = 1 + number % 3
        return [
            Prepared(i, [0] * length + [mask] * 5, [-1] * length + [0] * 5, [False] * length + [True] * 5)
            for i in (0, 1)
        ]

    engine, expected = Engine(model, batch_size=batch_size), dict[int, object]()
    found: dict[int, object] = {}
    waiting = list(enumerate(added))
    while True:
        if waiting and (not engine.running or data.draw(st.booleans())):
            number, (policy, seed) = waiting.pop(0)
            sampler = Sampler(policy, seed=seed)
            for row in rows(number):  # together in the engine, one by one outside
                [alone] = fill(sampler, model, ("text",), [row])
                expected[len(expected)] = essence(alone)
            engine.add(rows(number), sampler, ("text",))
        more = engine.step()
        found |= {number: essence(row) for number, row in engine.finished()}
        if not more and not waiting:
            break
    assert found == expected


def test_rows_under_one_guide_share_a_pass_and_others_do_not() -> None:
    spy = Spy(ScriptedDenoiser(Symbols(5), 1))
    mask = spy.inner.tokenizer.mask_id
    engine = Engine(spy, batch_size=8)  # type: ignore[arg-type]
    for text in ("top(1)", "whole+random+top(1)+ban([1])", "top(1)+cfg(1)", "whole+lookahead(2)"):
        engine.add(
            [Prepared(0, [0, *[mask] * 3], [-1, 0, 0, 0], [False, True, True, True])], Sampler(parse(text)), ("text",)
        )
    engine.step()
    # three rows under no guide, one under cfg; then what lookahead tries
    assert sorted(len(query.tokens) for query in spy.asked) == [1, 2, 3]
    # one seed and one id, yet every row has a name of its own
    assert all(len(set(query.rows.keys)) == len(query.rows.keys) for query in spy.asked)


def test_rows_chosen_by_number_go_on_and_a_row_taken_out_frees_its_place(model: Denoiser) -> None:
    sampler, rows = Sampler(parse("one-by-one"), seed=3), prepared(model)
    whole = {row.id: essence(row) for row in fill(sampler, model, TEMPLATE.slots, rows)}
    spy = Spy(model)
    engine = Engine(spy, batch_size=3)
    numbers = [*engine.add(rows[:3], sampler, TEMPLATE.slots), *engine.add(rows[3:], sampler, TEMPLATE.slots)]
    engine.step([numbers[1], numbers[5]])
    assert len(spy.asked[-1].tokens) == 2
    engine.step([numbers[4]])
    engine.remove(numbers[1])
    engine.remove(numbers[1])
    ((number, row),) = engine.finished()
    assert (number, row.id, row.outcome.name, row.nfe, row.filled) == (numbers[1], "row 1", "removed", 1, 1)
    assert engine.running == 6 and not engine.step([numbers[1]])
    while engine.step():
        pass
    assert {row.id: essence(row) for _, row in engine.finished()} == {k: v for k, v in whole.items() if k != "row 1"}


@pytest.mark.parametrize(
    ("policy", "speculate"), [("klass+temperature(1)", None), ("one-by-one", 4), ("lookahead(3)+top(1)", 4)]
)
def test_a_pass_that_fails_leaves_the_rows_where_they_stood(
    policy: str, speculate: int | None, model: Denoiser
) -> None:
    class Failing(Spy):
        def predict(self, query: Query) -> Prediction:
            if len(self.asked) == 3:
                self.asked.clear()
                raise RuntimeError("no device")
            return super().predict(query)

    sampler, slots = Sampler(parse(policy), seed=3), TEMPLATE.slots
    whole = {row.id: row for row in fill(sampler, model, slots, prepared(model), batch_size=4, speculate=speculate)}
    engine, failed = Engine(Failing(model), batch_size=4, speculate=speculate), 0
    engine.add(prepared(model), sampler, slots)
    while engine.running:
        try:
            engine.step()
        except RuntimeError:
            failed += 1
    assert failed
    for _, row in engine.finished():
        # a pass that failed was of no use, and is no pass of the rows
        assert essence(row) == essence(whole[row.id]) and row.rounds == whole[row.id].rounds


def test_who_watches_sees_looks_and_events_of_the_rows(model: Denoiser) -> None:
    events, looks = [], []
    watch = Watch(
        lambda state, event: events.append((state, event)), lambda rows, query, said: looks.append((rows, said))
    )
    engine, sampler = Engine(model, batch_size=2), Sampler(parse("one-by-one"))
    chunk = engine.ready(prepared(model)[:2], sampler, TEMPLATE.slots, watch=watch)
    assert engine.running == 0
    engine.enter(chunk)
    while engine.step():
        pass
    (_, first), *rest = events
    assert not len(first.rows)
    assert all(isinstance(state, State) and state.events[-1] is event for state, event in events)
    assert len(looks) == len(rest) == 10
    for (rows, said), (_, event) in zip(looks, rest, strict=True):
        assert rows.tolist() == event.rows.tolist()
        line = [rows.tolist().index(row) for row in event.row.tolist()]
        assert said.marginals.entropy[line, event.position].tolist() == event.entropy.tolist()
    guessed = engine.ready(prepared(model)[:2], sampler, TEMPLATE.slots, speculate=2, watch=watch)
    engine.enter(guessed)
    while engine.step():
        pass
    assert len(looks) == 10 and len(events) > 12


def test_a_row_whose_candidates_are_not_decided_is_taken_out_as_the_first_of_them() -> None:
    model, layout = ScriptedDenoiser(Symbols(6)), Template.parse("ab{text:2-5}c")
    row = prepare(model, layout, 0, {})
    engine = Engine(model)
    (number,) = engine.add([row], Sampler("top(1)"), layout.slots)
    for _ in range(3):  # those of two and three places are filled
        engine.step()
    engine.remove(number)
    assert not engine.running
    ((_, left),) = engine.finished()
    assert left.outcome.name == "removed" and len(left.tokens) == 5 and left.nfe == 2 + 3 + 3 + 3
    (number,) = engine.add([row], Sampler("top(1)"), layout.slots)
    while engine.step():
        pass
    engine.remove(number)
    ((_, whole),) = engine.finished()
    assert whole.outcome.name == "filled" and len(whole.tried) == 4


def test_the_engines_own_guesses_are_those_of_rows_that_say_nothing(model: Denoiser) -> None:
    engine = Engine(model, speculate=4)
    engine.add(prepared(model)[:2], Sampler("one-by-one"), TEMPLATE.slots)
    while engine.step():
        pass
    assert all(row.rounds < row.steps for _, row in engine.finished())
