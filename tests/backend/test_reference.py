"""The reference backend: the forward pass, its statistics and its draws, each against something independent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import attrs
import numpy as np
import pytest
from checkpoints import CONFIG, random_weights, write_checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from looks import BOUNDARIES
from numpy.typing import NDArray

from mdsample.backend.reference.backend import ReferenceDenoiser, open_model
from mdsample.backend.reference.prediction import NumpyPrediction, guided, reduce
from mdsample.backend.reference.trunk import NumpyTrunk
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import ModelError
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.models.families.llada import read
from mdsample.models.families.trunk import Single, Trunk
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Cfg, Guide, NoGuide

V = 320
few = settings(max_examples=30, deadline=None)


def trunk_of(seed: int = 0, **config: object) -> tuple[NumpyTrunk, dict[str, NDArray[np.float32]], dict[str, Any]]:
    full = {**CONFIG, **config}
    spec, weights = read(full), random_weights(full, seed)
    return NumpyTrunk(spec, named(spec, weights)), weights, full


def named(spec: Trunk, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Weights by our own names."""
    return {ours: weights[source.name] for ours, source in spec.layouts[0].items() if isinstance(source, Single)}


TRUNK, WEIGHTS, _ = trunk_of()


def oracle(weights: Mapping[str, NDArray[np.float32]], c: Mapping[str, Any], tokens: list[int]) -> NDArray[np.float64]:
    """Logits `[L, V]` of one row: float64, a loop per position, head and pair, straight from the formulas."""
    w = {k.removeprefix("model.transformer.").removesuffix(".weight"): v.astype(np.float64) for k, v in weights.items()}
    heads, size = c["n_heads"], c["d_model"] // c["n_heads"]
    group = heads // c["n_kv_heads"]

    def norm(x: NDArray[np.float64], g: NDArray[np.float64]) -> NDArray[np.float64]:
        return x / math.sqrt(sum(x * x) / len(x) + c["rms_norm_eps"]) * g

    def turn(x: NDArray[np.float64], position: int) -> NDArray[np.float64]:
        out = x.copy()
        for j in range(size // 2):
            angle = position / c["rope_theta"] ** (2 * j / size)
            a, b = x[j], x[j + size // 2]
            out[j] = a * math.cos(angle) - b * math.sin(angle)
            out[j + size // 2] = a * math.sin(angle) + b * math.cos(angle)
        return out

    x = [w["wte"][t] for t in tokens]
    for i in range(c["n_layers"]):
        block = {k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if k.startswith(f"blocks.{i}.")}
        h = [norm(a, block["attn_norm"]) for a in x]
        mixed = [np.zeros(heads * size) for _ in x]
        for head in range(heads):
            mine, shared = (
                slice(head * size, (head + 1) * size),
                slice(head // group * size, (head // group + 1) * size),
            )
            q = [turn((block["q_proj"] @ a)[mine], p) for p, a in enumerate(h)]
            k = [turn((block["k_proj"] @ a)[shared], p) for p, a in enumerate(h)]
            v = [(block["v_proj"] @ a)[shared] for a in h]
            for p in range(len(x)):
                weight = [math.exp(q[p] @ key / math.sqrt(size)) for key in k]
                mixed[p][mine] = sum(e / sum(weight) * value for e, value in zip(weight, v, strict=True))
        x = [a + block["attn_out"] @ m for a, m in zip(x, mixed, strict=True)]
        for p, a in enumerate(x):
            n = norm(a, block["ff_norm"])
            gate = block["ff_proj"] @ n
            x[p] = a + block["ff_out"] @ (gate / (1 + np.exp(-gate)) * (block["up_proj"] @ n))
    head = w["wte"] if c["weight_tying"] else w["ff_out"]
    return np.stack([head @ norm(a, w["ln_f"]) for a in x])


def batch(rows: list[list[int]], width: int | None = None, pad: int = 0) -> tuple[Any, Any]:
    """Tokens and validity `[B, L]`, padded at the end with token `pad`."""
    width = width or max(len(row) for row in rows)
    tokens, valid = np.full((len(rows), width), pad, np.int32), np.zeros((len(rows), width), np.bool_)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], valid[i, : len(row)] = row, True
    return tokens, valid


rows_of_tokens = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=9), min_size=1, max_size=4)


class TestTrunk:
    @pytest.mark.parametrize(
        "config",
        [
            {"n_kv_heads": 1},
            {"n_kv_heads": 2, "weight_tying": True, "rope_theta": 500.0},
            {"n_kv_heads": 4, "rms_norm_eps": 0.3, "n_layers": 3},
            {"n_heads": 1, "n_kv_heads": 1, "n_layers": 1},
        ],
    )
    def test_matches_the_formulas(self, config: dict[str, object]) -> None:
        trunk, weights, full = trunk_of(3, **config)
        rows = [[5, 0, 7, 7, 300, 2, 1], [2, 2, 9], [319]]
        tokens, valid = batch(rows, width=9)
        expected = np.concatenate([oracle(weights, full, row) for row in rows])
        found = trunk.logits(tokens, valid, valid)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())

    @few
    @given(rows_of_tokens, st.integers(0, 3))
    def test_rows_do_not_feel_batch_or_padding(self, rows: list[list[int]], more: int) -> None:
        tokens, valid = batch(rows, width=max(map(len, rows)) + more)
        together = TRUNK.logits(tokens, valid, valid)
        alone = np.concatenate([TRUNK.logits(*batch([row]), batch([row])[1]) for row in rows])
        np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(alone).max())

    @few
    @given(rows_of_tokens, st.integers(-(2**31), 2**31 - 1))
    def test_what_stands_in_padding_has_no_effect_at_all(self, rows: list[list[int]], pad: int) -> None:
        width = max(map(len, rows)) + 2
        (tokens, valid), (other, _) = batch(rows, width), batch(rows, width, pad)
        assert np.array_equal(TRUNK.logits(tokens, valid, valid), TRUNK.logits(other, valid, valid))

    @few
    @given(rows_of_tokens, st.randoms(use_true_random=False))
    def test_a_part_is_the_same_as_in_the_whole(self, rows: list[list[int]], random: Any) -> None:
        tokens, valid = batch(rows)
        wanted = valid & np.array([[random.random() < 0.4 for _ in row] for row in valid])
        whole = TRUNK.logits(tokens, valid, valid)
        part = TRUNK.logits(tokens, valid, wanted)
        assert part.shape == (wanted.sum(), V)
        np.testing.assert_allclose(part, whole[wanted[valid]], atol=1e-5 * np.abs(whole).max())

    def test_rows_of_nothing_but_padding_are_harmless(self) -> None:
        tokens, valid = batch([[4, 5], [6, 7]], width=3)
        valid[0] = False
        found = TRUNK.hidden(tokens, valid, valid)
        assert found.shape == (2, 16) and np.isfinite(found).all()
        assert TRUNK.logits(tokens, np.zeros_like(valid), np.zeros_like(valid)).shape == (0, V)

    def test_padding_may_stand_anywhere(self) -> None:
        """Positions count from the start of the array, so what is left out leaves a gap."""
        tokens, valid = batch([[4, 5, 6, 7]])
        valid[0, 1] = False
        shifted = batch([[4, 6, 7]])
        assert not np.allclose(TRUNK.logits(tokens, valid, valid), TRUNK.logits(*shifted, shifted[1]), atol=1e-3)

    def test_huge_gates_do_not_overflow(self) -> None:
        weights = random_weights()
        spec = read(CONFIG)
        tensors = {
            ours: x * np.float32(1e4 if ours.endswith("gate") else 1) for ours, x in named(spec, weights).items()
        }
        assert np.isfinite(NumpyTrunk(spec, tensors).logits(*batch([[1, 2, 3]]), batch([[1, 2, 3]])[1])).all()

    @pytest.mark.parametrize("token", [-1, V, 10**6])
    def test_refuses_ids_that_do_not_exist(self, token: int) -> None:
        tokens, valid = batch([[1, 2], [3, token]])
        with pytest.raises(ValueError, match=rf"row 1, position 1 holds token id {token}.* 0 to 319"):
            TRUNK.logits(tokens, valid, valid)

    def test_refuses_rows_that_are_too_long(self) -> None:
        tokens, valid = batch([[1] * 49])
        with pytest.raises(ValueError, match="a row has 49 tokens, but the model takes 48"):
            TRUNK.logits(tokens, valid, valid)
        valid[0, 48] = False
        assert len(TRUNK.logits(tokens, valid, valid)) == 48

    def test_refuses_to_look_at_padding(self) -> None:
        tokens, valid = batch([[1, 2], [3]])
        with pytest.raises(ValueError, match="row 1, position 1 is padding"):
            TRUNK.logits(tokens, valid, np.ones_like(valid))


# one row whose positions are the places


def look_at(scores: Any, allowed: Any = None) -> NumpyPrediction:
    scores = np.asarray(scores)
    wanted = np.ones((1, len(scores)), np.bool_)
    return NumpyPrediction(scores, wanted, restrict(wanted.shape, scores.shape[1], allowed), NoGuide())


def restrict(shape: tuple[int, int], size: int, allowed: Any = None) -> Restriction:
    sets = np.ones((1, size), np.bool_) if allowed is None else np.asarray(allowed, np.bool_).reshape(-1, size)
    index = np.broadcast_to(np.arange(shape[1]) % len(sets), shape).astype(np.int32)
    return Restriction(sets, index)


def places(n: int, position: int | None = None) -> tuple[Any, Any]:
    return np.zeros(n, np.int32), np.arange(n, dtype=np.int32) if position is None else np.full(n, position, np.int32)


class TestReduce:
    @few
    @given(
        st.lists(
            st.lists(st.one_of(st.floats(-50, 50, width=32), st.just(-math.inf)), min_size=6, max_size=6),
            min_size=1,
            max_size=4,
        ),
        st.sampled_from([np.float32, np.float64]),
    )
    def test_matches_the_formulas(self, rows: list[list[float]], kind: type) -> None:
        assume(all(max(row) > -math.inf for row in rows))
        found = reduce(np.array(rows, kind), *places(len(rows)))
        assert found.log_probability.dtype == found.entropy.dtype == kind
        for i, row in enumerate(rows):
            total = math.log(sum(math.exp(x - max(row)) for x in row)) + max(row)
            expected = [x - total for x in row]
            tolerance = 1e-5 if kind is np.float32 else 1e-12
            np.testing.assert_allclose(found.log_probability[i], expected, rtol=tolerance, atol=tolerance)
            assert found.top[i] == found.log_probability[i].max() == found.log_probability[i, found.token[i]]
            assert found.token[i] == found.log_probability[i].argmax()
            second = sorted(expected)[-2]
            np.testing.assert_allclose(found.second[i], second, rtol=tolerance, atol=tolerance)
            entropy = -sum(math.exp(x) * x for x in expected if x > -math.inf)
            np.testing.assert_allclose(found.entropy[i], entropy, rtol=tolerance * 10, atol=tolerance)
            assert found.entropy[i] >= 0

    def test_the_lowest_id_wins_ties(self) -> None:
        assert reduce(np.array([[1, 3, 3, 2], [0, 0, 0, 0]], np.float32), *places(2)).token.tolist() == [1, 0]
        # scores that differ, but not in their float32 log-probabilities
        found = reduce(np.array([[0, 1e-9]], np.float32), *places(1))
        assert found.token[0] == 0 and found.top[0] == found.second[0]

    def test_near_certainty_keeps_its_digits_in_float32(self) -> None:
        found = reduce(np.array([[0, -25, -30]], np.float32), *places(1))
        rest = math.exp(-25) + math.exp(-30)
        assert found.top[0] == pytest.approx(-math.log1p(rest), rel=1e-5)
        assert found.entropy[0] == pytest.approx(math.log1p(rest) + 25 * math.exp(-25) + 30 * math.exp(-30), rel=1e-5)

    def test_a_single_possible_token_is_certain(self) -> None:
        found = reduce(np.array([[-math.inf, 4, -math.inf]], np.float32), *places(1))
        assert (found.token[0], found.top[0], found.second[0], found.entropy[0]) == (1, 0, -math.inf, 0)

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            ([0.0, math.nan, 1.0], r"row 0, position 1 .*the highest is nan"),
            ([0.0, math.inf, 1.0], r"row 0, position 1 .*the highest is inf"),
            ([-math.inf] * 3, "row 0, position 1 .*probability zero; loosen the constraints"),
        ],
    )
    def test_broken_scores_are_an_error(self, scores: list[float], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            reduce(np.array([[0, 0, 0], scores], np.float32), *places(2))


class TestLook:
    def test_marginals_are_scattered_and_the_rest_is_unseen(self) -> None:
        wanted = np.array([[False, True, False], [True, False, True]])
        scores = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]]))
        found = NumpyPrediction(scores, wanted, restrict(wanted.shape, 3), NoGuide()).marginals
        assert found.token.tolist() == [[0, 0, 0], [2, 0, 1]]
        assert {found.log_probability.dtype, found.second.dtype, found.entropy.dtype} == {np.dtype(np.float32)}
        np.testing.assert_allclose(found.confidence[wanted], [0.7, 0.8, 0.5], rtol=1e-6)
        np.testing.assert_allclose(found.margin[wanted], [0.5, 0.7, 0.25], rtol=1e-6)
        assert (found.log_probability[~wanted] == -math.inf).all() and (found.entropy[~wanted] == math.inf).all()

    def test_what_is_banned_is_neither_measured_nor_drawn(self) -> None:
        prediction = look_at([[5.0, 1.0, 0.0, 9.0]], [[False, True, True, False]])
        found = prediction.marginals
        share = 1 / (1 + math.exp(-1))
        assert found.token[0, 0] == 1 and found.confidence[0, 0] == pytest.approx(share)
        np.testing.assert_allclose(prediction.probabilities(*places(1), Temperature()), [[0, share, 1 - share, 0]])

    def test_an_empty_set_names_its_place(self) -> None:
        with pytest.raises(ValueError, match="no token may stand at row 0, position 1"):
            look_at(np.zeros((2, 3)), [[True] * 3, [False] * 3])

    def test_a_restriction_renormalises(self) -> None:
        prediction = look_at(np.log([[0.5, 0.3, 0.2]]), [[False, True, True]])
        np.testing.assert_allclose(prediction.probabilities(*places(1), Temperature()), [[0, 0.6, 0.4]])
        token, probability = prediction.draw(*places(1), np.array([0.01]), Temperature(0.5))
        assert (token[0], probability[0]) == (1, pytest.approx(0.6))
        assert prediction.draw(*places(1), np.array([0.01]), Greedy())[0][0] == 1

    def test_float64_stays_exact(self) -> None:
        law = np.array([[1e-30, 0.25, 0.75]])
        np.testing.assert_allclose(look_at(np.log(law)).probabilities(*places(1), Temperature()), law, rtol=1e-13)

    def test_refusals(self) -> None:
        wanted = np.array([[True, False]])
        prediction = NumpyPrediction(np.zeros((1, 3)), wanted, restrict((1, 2), 3), NoGuide())
        with pytest.raises(ValueError, match="row 0, position 1 was not looked at"):
            prediction.draw(*places(1, 1), np.array([0.5]), Greedy())
        with pytest.raises(ValueError, match="uniforms must lie in"):
            prediction.draw(*places(1), np.array([1.0]), Greedy())
        with pytest.raises(ValueError, match="1 positions were looked at, but there are scores for 2"):
            NumpyPrediction(np.zeros((2, 3)), wanted, restrict((1, 2), 3), NoGuide())

        @final
        @attrs.frozen
        class Dice(Draw):
            name: ClassVar[str] = "dice"

        with pytest.raises(ValueError, match="the draw Dice is not known here; known: greedy, temperature"):
            prediction.draw(*places(1), np.array([0.5]), Dice())

    def test_nothing_looked_at(self) -> None:
        prediction = NumpyPrediction(
            np.zeros((0, 3), np.float32), np.zeros((2, 2), np.bool_), restrict((2, 2), 3), NoGuide()
        )
        assert (prediction.marginals.entropy == math.inf).all()
        tokens, probability = prediction.draw(*places(0), np.zeros(0), Temperature(top_p=0.5))
        assert tokens.shape == probability.shape == (0,)


def brute_force(scores: list[float], how: Temperature) -> list[float]:
    """The law of a draw, filter by filter, with Python lists."""

    def normalised(law: list[float]) -> list[float]:
        return [x / math.fsum(law) for x in law]

    law = normalised([math.exp((x - max(scores)) / how.t) for x in scores])
    best = sorted(range(len(law)), key=lambda v: (-law[v], v))
    if how.top_k:
        law = normalised([x if v in best[: how.top_k] else 0.0 for v, x in enumerate(law)])
    if how.min_p:
        assume(all(abs(x - how.min_p * max(law)) > 1e-9 for x in law))
        law = normalised([x if x >= how.min_p * max(law) else 0.0 for x in law])
    if how.top_p < 1:
        kept, mass = set[int](), 0.0
        for v in best:
            if mass >= how.top_p:
                break
            kept.add(v)
            mass += law[v]
            assume(abs(mass - how.top_p) > 1e-9)
        law = normalised([x if v in kept else 0.0 for v, x in enumerate(law)])
    return law


draws = st.builds(
    Temperature,
    st.sampled_from([0.3, 1.0, 2.5]),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.99)),
    top_k=st.integers(0, 8),
    min_p=st.one_of(st.just(0.0), st.floats(0.01, 0.99)),
)
# small whole numbers, so that ties are common
score_rows = st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(-math.inf)), min_size=1, max_size=6)


class TestDraw:
    @settings(max_examples=200, deadline=None)
    @given(score_rows, draws)
    def test_filters_match_brute_force(self, scores: list[float], how: Temperature) -> None:
        assume(max(scores) > -math.inf)
        expected = brute_force(scores, how)
        found = look_at([scores]).probabilities(*places(1), how)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found[0], expected, atol=1e-12)
        assert ((found[0] > 0) == (np.array(expected) > 0)).all()

    @pytest.mark.parametrize(("how", "kept"), BOUNDARIES)
    def test_boundaries(self, how: Temperature, kept: int) -> None:
        law = [0.5, 0.25, 0.25, 0.0] if kept < 4 else [0.25] * 4
        with np.errstate(divide="ignore"):
            scores = np.log([law])
        found = look_at(scores).probabilities(*places(1), how)[0]
        np.testing.assert_allclose(found, [p / sum(law[:kept]) if v < kept else 0 for v, p in enumerate(law)])

    @few
    @given(score_rows, draws)
    def test_probabilities_are_the_law_of_draw(self, scores: list[float], how: Temperature) -> None:
        assume(max(scores) > -math.inf)
        prediction, n = look_at([scores]), 2000
        tokens, probability = prediction.draw(*places(n, 0), (np.arange(n) + 0.5) / n, how)
        law = prediction.probabilities(*places(1), how)[0]
        # each token owns one interval of the uniforms, so its share is off by less than one point of the grid
        np.testing.assert_allclose(np.bincount(tokens, minlength=len(law)) / n, law, atol=1.001 / n)
        one = prediction.probabilities(*places(1), Temperature())[0]
        np.testing.assert_allclose(probability, one[tokens], rtol=1e-6)

    def test_greedy_takes_the_lowest_of_the_best_and_tells_its_probability(self) -> None:
        prediction = look_at(np.log([[0.2, 0.4, 0.4], [0.6, 0.3, 0.1]]))
        for u in (0.0, 0.5, 1 - 2**-53):
            tokens, probability = prediction.draw(*places(2), np.full(2, u), Greedy())
            assert tokens.tolist() == [1, 0] and tokens.dtype == np.int32 and probability.dtype == np.float32
            np.testing.assert_allclose(probability, [0.4, 0.6], rtol=1e-6)
        assert prediction.probabilities(*places(2), Greedy()).tolist() == [[0, 1, 0], [1, 0, 0]]

    @few
    @given(st.lists(st.one_of(st.floats(-800, 30), st.just(-math.inf)), min_size=2, max_size=40), st.integers(0, 2**31))
    def test_a_token_of_probability_zero_is_never_drawn(self, scores: list[float], seed: int) -> None:
        assume(max(scores) > -math.inf)
        prediction = look_at([scores])
        law = prediction.probabilities(*places(1), Temperature())[0]
        # the worst places for an inverse CDF: both ends, and every edge and its neighbours
        edges = np.cumsum(law) / law.sum()
        u = np.concatenate([[0.0, 1 - 2**-53], edges, np.nextafter(edges, 0), np.nextafter(edges, 1)])
        u = np.concatenate([u, np.random.default_rng(seed).random(50)])
        u = u[(u >= 0) & (u < 1)]
        tokens, _ = prediction.draw(*places(len(u), 0), u, Temperature())
        assert (law[tokens] > 0).all()

    @pytest.mark.slow
    def test_follows_the_law_at_the_size_of_a_real_vocabulary(self) -> None:
        size, n = 126_464, 640
        rng = np.random.default_rng(11)
        prediction = look_at((rng.normal(size=(1, size)) * 2).astype(np.float32))
        law = prediction.probabilities(*places(1), Temperature())[0]
        u = rng.random(n)
        tokens = np.concatenate([prediction.draw(*places(32, 0), part, Temperature())[0] for part in u.reshape(-1, 32)])
        group = rng.permutation(size) % 16
        expected = np.bincount(group, law, 16) * n
        statistic = ((np.bincount(group[tokens], minlength=16) - expected) ** 2 / expected).sum()
        assert statistic < 37.7  # the 99.9 % point of chi-square with 15 degrees of freedom
        # and exactly: the drawn token's interval of the CDF holds the uniform
        high = np.cumsum(law) / law.sum()
        assert ((high - law)[tokens] <= u + 1e-12).all() and (u <= high[tokens] + 1e-12).all()

    def test_the_coldest_temperature_is_greedy(self) -> None:
        prediction = look_at([[0.0, 1.0, 1.0 - 1e-9]])
        assert prediction.probabilities(*places(1), Temperature(5e-324), None).tolist() == [[0, 1, 0]]


class TestGuidance:
    def test_formula(self) -> None:
        rng = np.random.default_rng(0)
        c, u = rng.normal(size=(2, 3, 5)).astype(np.float32)
        assert guided([c, u], Cfg(1.5)).dtype == np.float32
        np.testing.assert_allclose(guided([c, u], Cfg(1.5)), u + 2.5 * (c - u), rtol=1e-5)
        np.testing.assert_allclose(guided([c, u], Cfg(0.0)), c, atol=1e-6)

    def test_log_probabilities_and_logits_give_one_law(self) -> None:
        rng = np.random.default_rng(0)
        c, u = rng.normal(size=(2, 3, 5))
        law = reduce(guided([c, u], Cfg(0.7)), *places(3)).log_probability
        shifted = reduce(guided([c - 2, u + 5], Cfg(0.7)), *places(3)).log_probability
        np.testing.assert_allclose(law, shifted, atol=1e-12)

    def test_impossible_tokens_make_no_nan(self) -> None:
        no = -math.inf
        scores = [np.array([[no, no, 1.0, 2.0]]), np.array([[no, 3.0, no, 1.0]])]
        assert guided(scores, Cfg(1.0)).tolist() == [[no, no, 1, 3]]


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> ReferenceDenoiser:
    return open_model(write_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


def query(rows: list[list[int]], wanted: Any, fixed: Any, guide: Guide) -> Query:
    tokens, valid = batch(rows)
    restriction = restrict(tokens.shape, V, [True] * 300 + [False] * 20)
    keys = Rows([(0, row) for row in range(len(rows))], np.zeros(len(rows), np.int32))
    return Query(tokens, valid, wanted & valid, fixed & valid, restriction, guide, keys)


class TestDenoiser:
    ROWS: ClassVar = [[0, 9, 2, 2, 12, 2], [0, 2, 8], [0, 5, 6, 2]]
    BLANK: ClassVar = batch(ROWS)[0] == 2
    FIXED: ClassVar = ~BLANK

    def test_is_a_denoiser(self, denoiser: ReferenceDenoiser) -> None:
        typed: Denoiser = denoiser
        assert (typed.name, typed.backend, typed.vocab_size, typed.max_length) == ("tiny", "reference", V, 48)
        assert typed.template == "{prompt}{answer:128}" and typed.tokenizer.mask_id == 2

    def test_looks_where_it_is_asked(self, denoiser: ReferenceDenoiser) -> None:
        wanted = self.BLANK.copy()
        wanted[1] = False
        prediction: Prediction = denoiser.predict(query(self.ROWS, wanted, self.FIXED, NoGuide()))
        seen = np.isfinite(prediction.marginals.entropy)
        assert np.array_equal(seen, wanted & batch(self.ROWS)[1])
        expected = oracle(WEIGHTS, CONFIG, self.ROWS[0])[2][:300]
        assert prediction.marginals.token[0, 2] == expected.argmax()
        top = expected.max() - math.log(np.exp(expected).sum())
        assert prediction.marginals.log_probability[0, 2] == pytest.approx(top, abs=1e-4)

    def test_guidance_hides_the_fixed_text(self, denoiser: ReferenceDenoiser) -> None:
        given = query(self.ROWS, self.BLANK, self.FIXED, Cfg(1.5))
        prediction = denoiser.predict(given)
        row = self.ROWS[0]
        c = oracle(WEIGHTS, CONFIG, row)[[2, 3, 5], :300]
        u = oracle(WEIGHTS, CONFIG, [2] * 6)[[2, 3, 5], :300]
        law = np.exp(u + 2.5 * (c - u))
        law /= law.sum(1, keepdims=True)
        at = np.zeros(3, np.int32), np.array([2, 3, 5], np.int32)
        np.testing.assert_allclose(prediction.probabilities(*at, Temperature())[:, :300], law, atol=2e-4)
        plain = denoiser.predict(query(self.ROWS, self.BLANK, self.FIXED, NoGuide())).marginals
        zero = denoiser.predict(query(self.ROWS, self.BLANK, self.FIXED, Cfg(0))).marginals
        np.testing.assert_allclose(zero.entropy, plain.entropy, atol=1e-5)

    def test_refuses_a_guide_it_does_not_know(self, denoiser: ReferenceDenoiser) -> None:
        @final
        @attrs.frozen
        class Angel(Guide):
            name: ClassVar[str] = "angel"

        with pytest.raises(ValueError, match="the guide Angel is not known here; known: none, cfg"):
            denoiser.predict(query(self.ROWS, self.BLANK, self.FIXED, Angel()))

    def test_damaged_weights_are_an_error_and_never_greedy(self, tmp_path: Path) -> None:
        weights = random_weights()
        norm = weights["model.transformer.ln_f.weight"]
        norm[:] = 3e38
        broken = open_model(write_checkpoint(tmp_path, weights=weights))
        with (
            np.errstate(all="ignore"),
            pytest.raises(ModelError, match=r"row 0, position 2 no usable scores: the highest is (nan|inf)"),
        ):
            broken.predict(query(self.ROWS, self.BLANK, self.FIXED, NoGuide()))
        for poison in (np.nan, np.inf, -np.inf):
            norm[:] = 1
            norm[3] = poison
            with pytest.raises(
                ModelError, match=rf"damaged: model.transformer.ln_f.weight is {poison} at \[3\]; fetch"
            ):
                open_model(write_checkpoint(tmp_path, weights=weights))
