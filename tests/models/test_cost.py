"""The cost model: monotone in all that makes a pass longer, and bounded by the slower side of the roofline."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsample.models.cost import Machine, Pace, Texts, pass_cost, text_seconds
from mdsample.models.families.trunk import Experts, Trunk

DENSE = Trunk(
    family="toy",
    vocab_size=100,
    d_model=16,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp_size=32,
    rope_theta=1e4,
    rotary_dim=4,
    norm_eps=1e-5,
    tied=False,
    mask_id=2,
    end_id=1,
    start_id=None,
    max_length=64,
    layouts=(),
)
SPARSE = attrs.evolve(DENSE, experts=Experts(count=8, chosen=2, size=8, shared_size=4, first=1))
TRUNKS = st.sampled_from([DENSE, SPARSE])
RATES = st.floats(1e3, 1e12)
MORE = st.integers(0, 20)


@given(TRUNKS, st.integers(1, 30), st.integers(1, 30), st.lists(MORE, min_size=5, max_size=5))
def test_a_pass_costs_more_the_more_there_is_to_do(trunk: Trunk, wanted: int, rows: int, more: list[int]) -> None:
    computed = wanted + more[0]
    length = computed + more[1]
    least = pass_cost(trunk, rows, length, computed, wanted, 2)
    for larger in (
        pass_cost(trunk, rows + more[2], length, computed, wanted, 2),
        pass_cost(trunk, rows, length + more[2], computed, wanted, 2),
        pass_cost(trunk, rows, length, computed, wanted, 2 + more[3]),
        pass_cost(trunk, rows, length, computed, min(computed, wanted + more[4]), 2),
    ):
        assert larger.operations >= least.operations and larger.bytes >= least.bytes
    # what is computed again is not read again
    all_computed = pass_cost(trunk, rows, length, length, wanted, 2)
    assert all_computed.operations >= least.operations


@given(TRUNKS, st.integers(1, 50), RATES, RATES, st.floats(1, 9))
def test_a_faster_machine_takes_no_longer(
    trunk: Trunk, rows: int, bandwidth: float, rate: float, faster: float
) -> None:
    cost = pass_cost(trunk, rows, 32, 8, 4, 4)
    here = cost.seconds(Machine(bandwidth, rate))
    assert cost.seconds(Machine(bandwidth * faster, rate)) <= here
    assert cost.seconds(Machine(bandwidth, rate * faster)) <= here
    assert cost.seconds(Machine(bandwidth * faster, rate * faster)) == pytest.approx(here / faster)
    # one of the two sides is the time, and the other is no longer
    sides = cost.bytes / bandwidth, cost.operations / rate
    assert here == max(sides)


def test_the_two_sides_of_the_roofline() -> None:
    slow_memory, slow_products = Machine(1.0, 1e15), Machine(1e15, 1.0)

    def seconds(rows: int, machine: Machine) -> float:
        return pass_cost(DENSE, rows, 8, 8, 8, 4).seconds(machine)

    # weights are read once, however many rows there are; every row multiplies
    assert seconds(8, slow_memory) == seconds(1, slow_memory)
    assert seconds(8, slow_products) == pytest.approx(8 * seconds(1, slow_products))


@pytest.mark.parametrize("trunk", [DENSE, SPARSE])
def test_a_pass_reads_the_weights_that_its_tokens_meet(trunk: Trunk) -> None:
    # norms, and the embedding, of which a pass reads a few rows
    small = trunk.d_model * (2 * trunk.layers + 1) + trunk.vocab_size * trunk.d_model
    one, many = (pass_cost(trunk, rows, 1, 1, 1, 1) for rows in (1, 10_000))
    assert one.bytes == pytest.approx(trunk.active_parameters - small)
    assert many.bytes == pytest.approx(trunk.parameters - small)
    attention = 4 * trunk.heads * trunk.head_dim * trunk.layers
    assert one.operations == pytest.approx(2 * (trunk.active_parameters - small) + attention)


@given(TRUNKS, st.integers(1, 20), st.integers(0, 40), st.integers(1, 8), st.sampled_from(["none", "dual", "exact"]))
def test_a_text_takes_longer_the_more_passes_it_needs(
    trunk: Trunk, rounds: int, more: int, batch: int, cache: str
) -> None:
    texts = Texts(batch=batch, length=48, blanks=16, window=4)
    machine = Machine(1e6, 1e7)

    def seconds(rounds: float, nfe: float, texts: Texts = texts) -> float:
        return text_seconds(trunk, machine, texts, Pace("", rounds, nfe), cache, 2)

    here = seconds(rounds, rounds)
    assert seconds(rounds + more, rounds + more) >= here
    assert seconds(rounds, rounds + more) >= here
    assert seconds(rounds, rounds, attrs.evolve(texts, batch=batch + more)) >= here
    assert seconds(rounds, rounds, attrs.evolve(texts, length=48 + more)) >= here


def test_paces_and_machines_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least as many passes"):
        Pace("x", 5, 4)
    with pytest.raises(ValueError, match="above 0"):
        Machine(0.0, 1.0)


def test_a_plan_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from mdsample_cli.main import main

    stated = ["inspect", "tiny-gsm", "--backend", "reference", "--bandwidth", "100", "--tflops", "2"]
    texts = ["--pace", "eb=39", "--pace", "eb+8=23/167.2", "--length", "160", "--blanks", "100"]
    assert main([*stated, *texts, "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["machine"] == {"bandwidth": 1e11, "rate": 2e12}
    assert [(text["name"], text["cache"]) for text in plan["texts"]] == [
        ("eb", "none"), ("eb", "dual"), ("eb+8", "none"),
    ]  # fmt: skip
    assert main([*stated, *texts, "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "100 GB/s, 2 TFLOP/s" in shown and "predicted, not measured" in shown
    for wrong, says in (
        ([*stated], "add --plan"),
        ([*stated, "--plan", "--pace", "eb"], "--pace takes a name"),
        ([*stated, "--plan", "--pace", "eb=5/4"], "at least as many"),
        ([*stated, "--plan", "--length", "1000000"], "tokens at most"),
        ([*stated, "--plan", "--length", "50", "--blanks", "51"], "make --length longer"),
        (["inspect", "tiny-gsm", "--plan", "--bandwidth", "100"], "both --bandwidth and --tflops"),
        (["inspect", "tiny-gsm", "--plan", "--bandwidth", "-1", "--tflops", "1"], "above 0"),
    ):
        assert main(wrong) == 2
        assert says in capsys.readouterr().err


def test_the_last_layer_is_computed_where_it_is_looked_at() -> None:
    few, all_looked_at = (pass_cost(DENSE, 1, 8, 8, wanted, 1).operations for wanted in (1, 8))
    # queries 16 x 16, output 16 x 16, gated middle 3 x 16 x 32, head 16 x 100; 16 wide heads meet 8 tokens twice
    assert all_looked_at - few == 7 * (2 * (2 * 16 * 16 + 3 * 16 * 32 + 16 * 100) + 4 * 16 * 8)
