"""The Torch look and its draws against NumPy in float64, against brute force, and at the size of a real vocabulary."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import attrs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from mdsample_torch import look as looking  # noqa: E402
from mdsample_torch.backend import guide_  # noqa: E402
from mdsample_torch.draw import _share, split  # noqa: E402
from mdsample_torch.look import TorchLook  # noqa: E402
from mdsample_torch.reduce import reduce_  # noqa: E402
from mdsample_torch.weights import BLOCK  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from mdsample.denoiser import Restriction  # noqa: E402
from mdsample.draw import Draw, Greedy, Temperature  # noqa: E402
from mdsample.loading import ModelError  # noqa: E402
from mdsample.reference.look import NumpyLook, guided  # noqa: E402

few = settings(max_examples=40, deadline=None)
REAL = 126_464


def restrict(shape: tuple[int, int], size: int, allowed: Any = None) -> Restriction:
    sets = np.ones((1, size), np.bool_) if allowed is None else np.asarray(allowed, np.bool_).reshape(-1, size)
    index = np.broadcast_to(np.arange(shape[1]) % len(sets), shape).astype(np.int32)
    return Restriction(sets, index, np.full(shape, -1, np.int32))


def look_at(scores: Any, allowed: Any = None, looked: Any = None) -> TorchLook:
    """A look at one row whose positions are the scores' rows."""
    table = torch.from_numpy(np.asarray(scores, np.float32))
    size = table.shape[1]
    looked = np.ones((1, len(table)), np.bool_) if looked is None else looked

    def logits(places: Any, out: Any) -> None:
        out[:, :size] = table[places]
        out[:, size:] = 1e9  # what lies beyond the vocabulary is never seen

    width = -(-size // BLOCK) * BLOCK
    return TorchLook(logits, size, width, looked, restrict(looked.shape, size, allowed), torch.device("cpu"))


def reference(scores: Any, allowed: Any = None) -> NumpyLook:
    scores = np.asarray(scores, np.float32).astype(np.float64)
    looked = np.ones((1, len(scores)), np.bool_)
    return NumpyLook(scores, looked, restrict(looked.shape, scores.shape[1], allowed))


def places(n: int, position: int | None = None) -> tuple[Any, Any]:
    return np.zeros(n, np.int32), np.arange(n, dtype=np.int32) if position is None else np.full(n, position, np.int32)


@st.composite
def tables(draw: st.DrawFn) -> Any:
    """Scores `[n, V]` with ties, −inf and huge gaps, in one block of the vocabulary or in several."""
    n, size = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 1]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    kind = draw(st.sampled_from(["ties", "usual", "sharp"]))
    scores = rng.integers(-3, 4, (n, size)).astype(np.float32)
    if kind != "ties":
        scores = (rng.normal(size=(n, size)) * (2 if kind == "usual" else 60)).astype(np.float32)
    scores[rng.random(scores.shape) < draw(st.sampled_from([0, 0.4]))] = -math.inf
    scores[:, rng.integers(size)] = draw(st.sampled_from([0.0, 3.0]))
    return scores


@st.composite
def sets(draw: st.DrawFn, scores: Any) -> Any:
    """No restriction, one set, or several, each with some token that is possible."""
    kinds = draw(st.sampled_from([0, 1, 3]))
    if not kinds:
        return None
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    allowed = rng.random((kinds, scores.shape[1])) < draw(st.sampled_from([0.01, 0.5, 0.99]))
    allowed[:, int(np.argmax(np.isfinite(scores).all(0)))] = True
    return allowed


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_statistics_equal_the_reference(data: st.DataObject) -> None:
    scores = data.draw(tables())
    assume(np.isfinite(scores).all(0).any())
    allowed = data.draw(sets(scores))
    found, expected = look_at(scores, allowed).marginals, reference(scores, allowed).marginals
    for name in ("log_probability", "second", "entropy"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6, err_msg=name)
    # where two tokens are as good as equal the lower id may win here and not there
    clear = found.log_probability - found.second > 1e-5
    clear |= (scores == np.round(scores)).all()  # whole numbers: ties are exact
    assert (found.token == expected.token)[clear].all() and found.token.dtype == np.int32


def test_equals_are_equals_even_in_other_blocks() -> None:
    scores = np.full((3, 2 * BLOCK), -50.0)
    scores[0, [BLOCK + 3, BLOCK + 7]] = 4  # a tie inside a block
    scores[1, [10, BLOCK + 1]] = 4  # and across blocks
    scores[2, 20], scores[2, BLOCK + 2] = 1e-9, 2e-9  # not equal, but their log-probabilities are
    assert look_at(scores).marginals.token.tolist() == [[BLOCK + 3, 10, 20]]


def test_near_certainty_is_told_from_certainty() -> None:
    found = look_at([[0.0, -25.0, -30.0], [5.0, -math.inf, -math.inf]]).marginals
    rest = math.exp(-25) + math.exp(-30)
    assert found.log_probability[0, 0] == pytest.approx(-math.log1p(rest), rel=1e-5)
    expected = math.log1p(rest) + 25 * math.exp(-25) + 30 * math.exp(-30)
    assert found.entropy[0, 0] == pytest.approx(expected, rel=1e-5)
    assert (found.log_probability[0, 1], found.second[0, 1], found.entropy[0, 1]) == (0, -math.inf, 0)


def test_looks_scatter_and_the_rest_is_unseen() -> None:
    looked = np.array([[False, True, False], [True, False, True]])
    found = look_at(np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]]), looked=looked).marginals
    assert found.token.tolist() == [[0, 0, 0], [2, 0, 1]]
    np.testing.assert_allclose(found.confidence[looked], [0.7, 0.8, 0.5], rtol=1e-6)
    assert (found.log_probability[~looked] == -math.inf).all() and (found.entropy[~looked] == math.inf).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.0, math.nan, 1.0], "row 0, position 1 no usable scores: the highest is nan; its weights are damaged"),
        ([0.0, math.inf, 1.0], "row 0, position 1 no usable scores: the highest is inf"),
        ([-math.inf] * 3, "row 0, position 1 no usable scores: every token .* probability zero; loosen"),
    ],
)
def test_broken_scores_are_an_error(scores: list[float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        look_at([[0, 0, 0], scores])


def test_refusals() -> None:
    looked = np.array([[True, False]])
    look = look_at(np.zeros((1, 3)), looked=looked)
    with pytest.raises(ValueError, match="row 0, position 1 was not looked at"):
        look.draw(*places(1, 1), np.array([0.5]), Greedy())
    with pytest.raises(ValueError, match="uniforms must lie in"):
        look.draw(*places(1), np.array([1.0]), Greedy())
    with pytest.raises(ValueError, match="no token may stand at row 0, position 1"):
        look_at(np.zeros((2, 3)), [[True] * 3, [False] * 3])
    with pytest.raises(ValueError, match="no token may stand at row 0, position 0"):
        look.draw(*places(1), np.array([0.5]), Greedy(), restrict((1, 2), 3, [[False] * 3]))
    with pytest.raises(ModelError, match="row 0, position 0 no usable scores: every token"):
        look_at([[0, -math.inf]]).draw(*places(1), np.array([0.5]), Greedy(), restrict((1, 1), 2, [[False, True]]))

    @final
    @attrs.frozen
    class Dice(Draw):
        name: ClassVar[str] = "dice"

    with pytest.raises(ValueError, match="the draw Dice is not known here; known: greedy, temperature"):
        look.draw(*places(1), np.array([0.5]), Dice())


def test_nothing_looked_at() -> None:
    look = look_at(np.zeros((0, 3)), looked=np.zeros((2, 2), np.bool_))
    assert (look.marginals.entropy == math.inf).all()
    tokens, probability = look.draw(*places(0), np.zeros(0), Temperature(top_p=0.5))
    assert tokens.shape == probability.shape == (0,)


DRAWS = st.builds(
    Temperature,
    st.sampled_from([0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 1.0, 0.013, 0.37, 0.9]),
    top_k=st.sampled_from([0, 0, 1, 3, 400]),
    min_p=st.sampled_from([0.0, 0.0, 0.0123, 0.77]),
)


def off_edges(law: Any, tokens: Any, uniforms: Any) -> Any:
    """How far each uniform lies outside its token's interval of the CDF; 0 is inside."""
    high = np.cumsum(law, 1) / law.sum(1, keepdims=True)
    here = np.arange(len(tokens))
    upper = high[here, tokens]
    return np.maximum(upper - law[here, tokens] - uniforms, uniforms - upper).clip(0)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_draws_equal_the_reference(data: st.DataObject) -> None:
    scores = data.draw(tables())
    assume(np.isfinite(scores).all(0).any())
    allowed, how = data.draw(sets(scores)), data.draw(DRAWS)
    at, n = data.draw(st.integers(0, len(scores) - 1)), 40
    ours, theirs = look_at(scores, allowed), reference(scores, allowed)
    law = theirs.probabilities(*places(1, at), how)
    one = theirs.probabilities(*places(1, at), Temperature())[0]
    # thresholds that rounding could put on either side
    if how.min_p or how.top_p < 1:
        plain = theirs.probabilities(*places(1, at), Temperature(how.t, top_k=how.top_k))[0]
        assume((np.abs(plain / plain.max() - how.min_p) > 1e-5).all())
        cut = theirs.probabilities(*places(1, at), Temperature(how.t, top_k=how.top_k, min_p=how.min_p))[0]
        assume((np.abs(np.cumsum(np.sort(cut)[::-1]) - how.top_p) > 1e-5).all())
        assume(len(np.unique(scores)) == scores.size or how.top_p == 1)
    uniforms = np.random.default_rng(data.draw(st.integers(0, 9))).random(n)
    tokens, probability = ours.draw(*places(n, at), uniforms, how)
    assert tokens.dtype == np.int32 and probability.dtype == np.float32
    assert off_edges(np.repeat(law, n, 0), tokens, uniforms).max() < 1e-6 and (law[0, tokens] > 0).all()
    np.testing.assert_allclose(probability, one[tokens], rtol=1e-4)


@few
@given(st.data())
def test_greedy_and_narrower_restrictions_equal_the_reference(data: st.DataObject) -> None:
    scores = data.draw(tables())
    assume(np.isfinite(scores).all(0).any())
    narrow = data.draw(sets(scores))
    restriction = None if narrow is None else restrict((1, len(scores)), scores.shape[1], narrow)
    n, u = len(scores), np.full(len(scores), 0.7)
    for how in (Greedy(), Temperature(0.8)):
        expected = reference(scores).draw(*places(n), u, how, restriction)
        found = look_at(scores).draw(*places(n), u, how, restriction)
        law = reference(scores).probabilities(*places(n), how, restriction)
        if isinstance(how, Greedy):
            ranked = np.sort(
                scores if narrow is None else np.where(narrow[np.arange(n) % len(narrow)], scores, -1e9), 1
            )
            clear = np.ones(n, np.bool_) if n == 0 or scores.shape[1] == 1 else ranked[:, -1] - ranked[:, -2] > 1e-5
            assert (found[0] == expected[0])[clear].all()
        else:
            assert off_edges(law, found[0], u).max() < 1e-6
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-4) if (found[0] == expected[0]).all() else None


@few
@given(
    st.lists(st.one_of(st.floats(-800, 30, width=32), st.just(-math.inf)), min_size=2, max_size=40), st.integers(0, 99)
)
def test_a_token_of_probability_zero_is_never_drawn(scores: list[float], seed: int) -> None:
    assume(max(scores) > -math.inf)
    law = reference([scores]).probabilities(*places(1), Temperature())[0]
    edges = np.cumsum(law) / law.sum()
    u = np.concatenate([[0.0, 2.0**-54, 1 - 2**-53], edges, np.nextafter(edges, 0), np.nextafter(edges, 1)])
    u = np.concatenate([u, np.random.default_rng(seed).random(20)])
    u = u[(u >= 0) & (u < 1)]
    tokens, _ = look_at([scores]).draw(*places(len(u), 0), u, Temperature())
    assert (law[tokens] > 0).all()


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        (Temperature(top_p=0.5), 1),  # reached exactly: nothing more is needed
        (Temperature(top_p=0.51), 2),  # the token that crosses is kept
        (Temperature(top_p=0.75), 2),
        (Temperature(min_p=0.5), 3),  # exactly the share is enough
        (Temperature(min_p=0.51), 1),
        (Temperature(top_k=2), 2),  # of three equals at the boundary, the lowest ids
        (Temperature(top_k=2, top_p=0.6), 1),  # 2/3 after renormalisation
        (Temperature(top_k=9), 4),
    ],
)
def test_boundaries(how: Temperature, kept: int) -> None:
    law = [0.5, 0.25, 0.25, 0.0] if kept < 4 else [0.25] * 4
    with np.errstate(divide="ignore"):
        scores = np.log2([law]) * math.log(2)
    tokens, _ = look_at(scores).draw(*places(100, 0), (np.arange(100) + 0.5) / 100, how)
    assert set(tokens.tolist()) == set(range(kept))


@pytest.mark.parametrize("t", [5e-324, 1e-300, 1e-30])
def test_the_coldest_temperature_is_greedy(t: float) -> None:
    tokens, _ = look_at([[0.0, 1.0, 0.999]]).draw(*places(9, 0), np.linspace(0, 0.99, 9), Temperature(t))
    assert set(tokens.tolist()) == {1}


@pytest.mark.parametrize("t", [1e300, 1e25])
def test_the_hottest_is_uniform_over_what_is_allowed(t: float) -> None:
    look = look_at([[0.0, 9.0, -800.0, 5.0]], [[True, True, True, False]])
    tokens, _ = look.draw(*places(300, 0), (np.arange(300) + 0.5) / 300, Temperature(t))
    assert np.bincount(tokens, minlength=4).tolist() == [100, 100, 100, 0]


@few
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2**60 - 1))
def test_shares_are_exact(share: float, total: int) -> None:
    found = int(_share(torch.from_numpy(split(np.array([share]))), torch.tensor([total]))[0])
    exact = int(share * 2**60) * total >> 60 if share * 2**60 == int(share * 2**60) else None
    assert 0 <= found < total
    if exact is not None:
        assert exact - 1 <= found <= exact


class TestRealVocabulary:
    SCORES: ClassVar = (np.random.default_rng(11).normal(size=(1, REAL)) * 2).astype(np.float32)

    @pytest.mark.parametrize("how", [Temperature(), Temperature(0.6), Temperature(top_p=0.9)])
    def test_draws_follow_the_law(self, how: Temperature) -> None:
        n = 640 if how.top_p == 1 else 32
        u = np.random.default_rng(12).random(n)
        tokens, _ = look_at(self.SCORES).draw(*places(n, 0), u, how)
        law = reference(self.SCORES).probabilities(*places(1), how)[0]
        # exactly: the uniform lies in its token's interval of the CDF computed in float64
        high = np.cumsum(law) / law.sum()
        assert np.maximum((high - law)[tokens] - u, u - high[tokens]).max() < 1e-6
        # and by chi-square, which knows nothing of intervals
        group = np.random.default_rng(13).permutation(REAL) % 16
        expected = np.bincount(group, law, 16) * n
        if n > 100:
            assert ((np.bincount(group[tokens], minlength=16) - expected) ** 2 / expected).sum() < 37.7  # 99.9 %, 15

    def test_total_variation_from_float64(self) -> None:
        """The whole-number law itself, not a sample of it."""
        from mdsample_torch.draw import _amounts

        for scale in (0.25, 1.0, 2.0):
            scores = torch.from_numpy(self.SCORES * np.float32(scale)).clone()
            exact = torch.softmax(scores.double(), 1)
            reduce_(scores, torch.empty_like(scores))
            amounts = _amounts(scores, Temperature()).double()
            assert 0.5 * (amounts / amounts.sum() - exact).abs().sum() < 1e-6

    def test_entropy_is_exact(self) -> None:
        law = reference(self.SCORES).marginals
        found = look_at(self.SCORES).marginals
        np.testing.assert_allclose(found.entropy, law.entropy, rtol=1e-6)
        np.testing.assert_allclose(found.log_probability, law.log_probability, rtol=1e-6)


class Watch(TorchDispatchMode):
    """Counts what would wait for the device, were the tensors on one: copies to the host and reads of single values."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique", "equal", "bincount", "is_nonzero")
        name = func._schema.name.removeprefix("aten::")
        if name in waits or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.reads.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunk_rows", [1, 3])
def test_one_transfer_a_look_and_one_a_draw(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many chunks: the host fetches once, and nothing else makes it wait."""
    monkeypatch.setattr(looking, "CHUNK_BYTES", chunk_rows * 4 * BLOCK)
    fetched: list[Any] = []
    own = torch.Tensor.cpu

    def cpu(self: Any) -> Any:
        fetched.append(self.shape)
        return own(self)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    scores = np.random.default_rng(0).normal(size=(7, 300))
    with Watch() as watch:
        look = look_at(scores, [[True] * 290 + [False] * 10, [False] * 100 + [True] * 200])
        assert fetched == [(4, 7)]
        look.draw(*places(7), np.full(7, 0.3), Greedy())
        assert fetched == [(4, 7)], "the look has said what a greedy draw gives"
        look.draw(*places(7), np.full(7, 0.3), Temperature(0.7, top_p=0.9, top_k=50, min_p=0.01))
        assert fetched == [(4, 7), (2, 7)]
    assert not watch.reads
    monkeypatch.setattr(looking, "CHUNK_BYTES", 64 << 20)
    whole = look_at(scores, [[True] * 290 + [False] * 10, [False] * 100 + [True] * 200]).marginals
    np.testing.assert_array_equal(look.marginals.token, whole.token)


def test_logits_are_never_there_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def logits(places: Any, out: Any) -> None:
        sizes.append(out.numel() * 4)
        out[:] = 0

    looked = np.ones((2, 200), np.bool_)
    TorchLook(logits, REAL, REAL, looked, restrict(looked.shape, REAL), torch.device("cpu"))
    assert max(sizes) <= looking.CHUNK_BYTES and len(sizes) == -(-400 // (looking.CHUNK_BYTES // 4 // REAL))


@few
@given(st.data())
def test_logits_kept_or_made_again_give_the_same_draw(data: st.DataObject) -> None:
    scores = data.draw(tables())
    assume(np.isfinite(scores).all(0).any())
    allowed, how, n = data.draw(sets(scores)), data.draw(DRAWS), len(scores)
    u = np.random.default_rng(data.draw(st.integers(0, 9))).random(n)
    kept, again = look_at(scores, allowed), look_at(scores, allowed)
    assert kept._kept is not None
    again._kept = None
    asked: list[int] = []
    for look in (kept, again):
        own = look._logits
        look._logits = lambda places, out, own=own: (asked.append(len(places)), own(places, out))[1]
    for one, other in zip(kept.draw(*places(n), u, how), again.draw(*places(n), u, how), strict=True):
        np.testing.assert_array_equal(one, other)
    assert asked == [n], "the kept ones are not made again"


def test_what_was_impossible_stays_so_under_a_narrower_restriction() -> None:
    narrow = restrict((1, 1), 3, [[False, True, True]])
    for how in (Greedy(), Temperature()):
        with pytest.raises(ModelError, match=r"every token .* probability zero"):
            look_at([[0.0, -math.inf, -math.inf]]).draw(*places(1), np.full(1, 0.5), how, narrow)


@few
@given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 3.0]))
def test_guidance_equals_the_reference(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    c, u = (rng.normal(size=(2, 3, 9)) * 4).astype(np.float32)
    c[0, 3], u[1, 4], u[0, 3] = -math.inf, -math.inf, -math.inf
    found = torch.from_numpy(c.copy())
    guide_(found, torch.from_numpy(u.copy()), scale)
    np.testing.assert_array_equal(found.numpy(), guided(c, u, scale).astype(np.float32))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 50, 700]), st.sampled_from([1.0, 0.999, 0.9, 0.3, 0.01]))
def test_what_is_kept_is_what_a_whole_stable_sort_keeps(seed: int, top_k: int, top_p: float) -> None:
    from mdsample_torch import draw

    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 4)), 1024
    scores = rng.normal(size=shape) * rng.choice([0.01, 1, 8])
    scores = np.round(scores) if seed % 2 else scores
    scaled = torch.tensor(scores - scores.max(1, keepdims=True), dtype=torch.float32)
    how = Temperature(top_p=top_p, top_k=top_k)
    found = draw._amounts(scaled, how).numpy()
    plain = draw._amounts(scaled, Temperature()).numpy()
    share = torch.from_numpy(split(np.full(1, top_p)))
    for row in range(len(found)):
        order = np.argsort(-scaled[row].numpy(), kind="stable")[: top_k or None]
        reached = np.cumsum(plain[row, order])
        if top_p < 1:
            goal = int(_share(share, torch.tensor(reached[-1:])))
            order = order[np.concatenate([[True], reached[:-1] < goal])]
        expected = np.zeros_like(plain[row])
        expected[order] = plain[row, order]
        assert (found[row] == expected).all()
