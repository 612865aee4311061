"""The suites for a model and for a backend of your own: predictions against their own log-probabilities in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, final

import attrs
import numpy as np
from numpy.testing import assert_allclose

from mdsample.backend.load import Opener
from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.backend.setup import Setup
from mdsample.core.arrays import Doubles, Floats, Ints
from mdsample.core.credits import Credits
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import ModelError
from mdsample.models.cache import read_cache
from mdsample.models.denoiser import Denoiser, Prediction, Query, Tuning
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Annealing, Cfg, Cooling, Credit, NoGuide, Repetition
from mdsample.testing.languages import check_languages

_DRAWS = (Greedy(), Temperature(), Temperature(0.3), Temperature(1.7, top_k=3), Temperature(min_p=0.0123))
#: tokens of the rows, the first not padded
_LENGTHS = (12, 7, 10)


@final
@attrs.frozen
class _Dice(Draw):
    """A draw that no backend knows."""

    name: ClassVar[str] = "dice"


def check_denoiser(denoiser: Denoiser, tolerance: float = 1e-4) -> None:
    """Raises `AssertionError` for the first promise of `mdsample.models.denoiser` that a model does not keep.

    Statistics and draws are those of the law that its own log-probabilities give in float64, under restrictions,
    languages and guidance too; forbidden tokens are never drawn; what cannot be meant is refused with a sentence; a
    row's numbers do not depend on padding, order and neighbours. `tolerance`: nats by which they may, about 1e-4 in
    float32 and 0.1 in bfloat16. Rows have up to 12 tokens.
    """
    free, narrow = _query(denoiser), _query(denoiser, restricted=True)
    for query in (free, narrow):
        prediction = denoiser.predict(query)
        table = _table(prediction, query, denoiser.vocab_size)
        _statistics(prediction, query, table)
        _draws(prediction, query, table)
        _refusals(prediction, query, denoiser.vocab_size)
    _nothing_allowed(denoiser, free)
    _compared(denoiser, free, narrow)
    check_languages(denoiser, free, tolerance)
    if denoiser.cache is None:
        _guidance(denoiser, free, tolerance)
        _cooling(denoiser, free, tolerance)
        _tuning(denoiser, free, tolerance)
        _credit(denoiser, free, tolerance)
        _rows_alone(denoiser, free, tolerance)


def check_backend(open_model: Opener, folder: Path) -> None:
    """Asserts that an opener refuses what it does not have, and that what it opens passes `check_denoiser`.

    `folder`: a small model; it is opened on the device and in the type that the backend takes by itself.
    """

    def opened(device: str | None = None, dtype: str | None = None, cache: str | None = None) -> Denoiser:
        kept = None if cache is None else read_cache(cache)
        return open_model(folder, Setup(device=device, dtype=dtype, cache=kept))

    _refused(lambda: opened(device="abacus"), ModelError, "abacus")
    _refused(lambda: opened(dtype="float7"), ModelError, "float7")
    for cache in ("exact", "prefix", "dual"):
        try:
            kept = opened(cache=cache).cache
        except ModelError as error:
            assert str(error), "a refusal needs a sentence"
        else:
            assert kept == read_cache(cache), f"the cache {cache!r} was ignored; refuse what there is not"
    _refused(lambda: open_model(folder, Setup(adapter=folder)), ModelError, "adapter")
    check_denoiser(opened())


def _query(denoiser: Denoiser, *, restricted: bool = False) -> Query:
    """Rows of random text with blanks; a restricted one forbids half of the tokens in every second position."""
    rng, tokenizer, vocab = np.random.default_rng(0), denoiser.tokenizer, denoiser.vocab_size
    lengths = np.minimum(_LENGTHS, denoiser.max_length)
    shape = (len(lengths), int(lengths.max()))
    valid = np.arange(shape[1]) < lengths[:, None]
    real = np.array([token for token in range(tokenizer.size) if token != tokenizer.mask_id], np.int32)
    blank = valid & (rng.random(shape) < 0.5)
    blank[:, 1] = True
    tokens = np.where(blank, np.int32(tokenizer.mask_id), rng.choice(real, shape)).astype(np.int32)
    tokens[~valid] = tokenizer.mask_id
    sets = np.zeros((2, vocab), np.bool_)
    sets[:, real] = True
    sets[1, rng.permutation(real)[: len(real) // 2]] = False
    index = np.zeros(shape, np.int32)
    index[:, 1::2] = restricted
    restriction = Restriction(sets, index)
    rows = Rows([(number, 0) for number in range(shape[0])], np.zeros(shape[0], np.int32))
    return Query(tokens, valid, blank, valid & ~blank, restriction, NoGuide(), rows)


def _places(query: Query) -> tuple[Ints, Ints]:
    rows, positions = np.nonzero(query.wanted)
    return rows.astype(np.int32), positions.astype(np.int32)


def _table(prediction: Prediction, query: Query, vocab: int) -> Doubles:
    """Log-probabilities `[N, V]` of every token at every place, as the model says them, normalised in float64."""
    rows, positions = _places(query)
    tokens = np.tile(np.arange(vocab, dtype=np.int32), len(rows))
    stated = prediction.log_probabilities(np.repeat(rows, vocab), np.repeat(positions, vocab), tokens)
    assert stated.dtype == np.float32, "log-probabilities must be float32"
    table = stated.reshape(len(rows), vocab).astype(np.float64)
    forbidden = ~query.restriction.sets[query.restriction.index[rows, positions]]
    assert (table[forbidden] == -np.inf).all(), "a token that the restriction forbids must have log-probability −inf"
    total = np.exp(table).sum(1)
    assert_allclose(total, 1, atol=1e-4, err_msg="probabilities must sum to 1 over the allowed tokens")
    return table - np.log(total)[:, None]


def _own(query: Query, table: Doubles) -> NumpyPrediction:
    return NumpyPrediction(table, query.wanted, query.restriction, NoGuide())


def _statistics(prediction: Prediction, query: Query, table: Doubles) -> None:
    marginals, expected = prediction.marginals, _own(query, table).marginals
    for name in ("log_probability", "second", "entropy"):
        ours, theirs = getattr(marginals, name), getattr(expected, name)
        assert ours.dtype == np.float32 and ours.shape == query.tokens.shape, f"{name} must be float32 [B, L]"
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=f"{name} differs from its own log-probabilities")
    clear = query.wanted & (expected.log_probability > expected.second + 1e-4)
    assert marginals.token.dtype == np.int32, "tokens must be int32"
    assert (marginals.token == expected.token)[clear].all(), "the most probable token is another"


def _draws(prediction: Prediction, query: Query, table: Doubles) -> None:
    """Uniforms must lie in their token's interval of the CDF, at its edges too."""
    rng, own, (rows, positions) = np.random.default_rng(1), _own(query, table), _places(query)
    for how in _DRAWS:
        law = own.probabilities(rows, positions, how)
        high = np.cumsum(law, 1) / law.sum(1, keepdims=True)
        for uniforms in (rng.random(len(rows)), np.zeros(len(rows)), np.full(len(rows), 1 - 2.0**-53)):
            tokens, probability = prediction.draw(rows, positions, uniforms, how)
            assert tokens.dtype == np.int32 and probability.dtype == np.float32
            place = np.arange(len(rows))
            assert (table[place, tokens] > -np.inf).all(), f"{how}: a token of probability zero was drawn"
            assert_allclose(probability, np.exp(table[place, tokens]), rtol=1e-3, atol=1e-6)
            if isinstance(how, Greedy):
                best = table.max(1) - table[place, tokens]
                assert (best < 1e-4).all(), "greedy drew a token that is not the most probable"
                continue
            upper = high[place, tokens]
            outside = np.maximum(upper - law[place, tokens] - uniforms, uniforms - upper)
            assert (outside < 1e-4).all(), f"{how}: a uniform lies outside its token's interval of the CDF"


def _refused(call: Callable[[], object], kind: type[Exception], *words: str) -> None:
    try:
        call()
    except kind as error:
        missing = [word for word in words if not re.search(word, str(error))]
        assert not missing, f"the refusal should name {', '.join(missing)}; it says: {error}"
    else:
        raise AssertionError(f"{kind.__name__} should have been raised, with a sentence about {' and '.join(words)}")


def _refusals(prediction: Prediction, query: Query, vocab: int) -> None:
    rows, positions = (array[:1] for array in _places(query))
    half = np.full(1, 0.5)
    row, position = (array.astype(np.int32) for array in np.argwhere(~query.wanted & query.valid)[:1].T)
    unseen = f"row {row[0]}, position {position[0]}"
    token = np.zeros(1, np.int32)
    _refused(lambda: prediction.draw(row, position, half, Greedy()), ValueError, unseen)
    _refused(lambda: prediction.log_probabilities(row, position, token), ValueError, unseen)
    _refused(lambda: prediction.divergence(row, position, prediction, row), ValueError, unseen)
    _refused(lambda: prediction.draw(rows, positions, half + 0.5, Greedy()), ValueError, "uniforms")
    _refused(lambda: prediction.draw(rows, positions, half, _Dice()), ValueError, "_Dice", "temperature")
    for strange in (-1, vocab):
        wrong = np.full(1, strange, np.int32)
        _refused(lambda wrong=wrong: prediction.log_probabilities(rows, positions, wrong), ValueError, str(wrong[0]))


def _nothing_allowed(denoiser: Denoiser, query: Query) -> None:
    rows, positions = _places(query)
    nothing = Restriction(np.zeros_like(query.restriction.sets), query.restriction.index)
    where = f"row {rows[0]}, position {positions[0]}"
    _refused(lambda: denoiser.predict(attrs.evolve(query, restriction=nothing)), ValueError, where)


def _compared(denoiser: Denoiser, free: Query, narrow: Query) -> None:
    """Divergences between predictions are those of their log-probabilities; +inf for what was forbidden before."""
    rows, positions = _places(free)
    wide, tight = denoiser.predict(free), denoiser.predict(narrow)
    tables = [_own(query, _table(p, query, denoiser.vocab_size)) for p, query in ((wide, free), (tight, narrow))]
    for (now, before), own in (((wide, tight), tables), ((tight, wide), tables[::-1])):
        kl = now.divergence(rows, positions, before, rows)
        assert kl.dtype == np.float32 and (kl >= 0).all()
        expected = own[0].divergence(rows, positions, own[1], rows)
        assert_allclose(kl, expected, rtol=1e-3, atol=1e-4, err_msg="KL between two predictions")


def _guidance(denoiser: Denoiser, query: Query, tolerance: float) -> None:
    """Guidance is u + (scale + 1)(c − u), u from the row with its fixed text masked."""
    hidden = np.where(query.fixed, np.int32(denoiser.tokenizer.mask_id), query.tokens)
    c, u = (
        _table(denoiser.predict(attrs.evolve(query, tokens=tokens)), query, denoiser.vocab_size)
        for tokens in (query.tokens, hidden)
    )
    both = attrs.evolve(query, guide=Cfg(0.5))
    expected = _own(query, guided([c, u], Cfg(0.5)).astype(np.float64)).marginals
    marginals = denoiser.predict(both).marginals
    for name in ("log_probability", "entropy"):
        ours, theirs = (getattr(source, name)[query.wanted] for source in (marginals, expected))
        assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg=f"{name} under cfg(0.5)")


def _cooling(denoiser: Denoiser, query: Query, tolerance: float) -> None:
    """Under `cooling` all that is measured is the tempered and cut law's."""
    free = _table(denoiser.predict(query), query, denoiser.vocab_size)
    rows, positions = _places(query)
    for guide in (Cooling(0.5), Cooling(1.5, top_k=2)):
        cooled = attrs.evolve(query, guide=guide)
        expected = NumpyPrediction(free.astype(np.float64), query.wanted, query.restriction, guide)
        found = denoiser.predict(cooled)
        for name in ("log_probability", "entropy"):
            ours, theirs = (getattr(source.marginals, name)[query.wanted] for source in (found, expected))
            assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg=f"{name} under {guide.name}")
        tokens = found.marginals.token[rows, positions]
        ours, theirs = (source.log_probabilities(rows, positions, tokens) for source in (found, expected))
        assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg=f"log-probabilities under {guide.name}")


def _tuning(denoiser: Denoiser, query: Query, tolerance: float) -> None:
    """`annealing` and `repetition` change the logits place by place before all else."""
    free = _table(denoiser.predict(query), query, denoiser.vocab_size)
    rows, positions = _places(query)
    left = np.full_like(query.tokens, -1)
    left[:, 1:] = np.where(query.wanted[:, :-1], np.int32(-1), query.tokens[:, :-1])
    for tuning in (
        Tuning(np.linspace(0.5, 1.5, len(left)).astype(np.float32), np.full_like(left, -1), 0.0),
        Tuning(np.ones(len(left), np.float32), left, 2.0),
    ):
        guide = Repetition(tuning.lowered) if tuning.lowered else Annealing()
        expected = free.copy()
        which, token, divisor = tuning.at(rows, positions)
        expected[which, token] -= tuning.lowered
        expected = _own(query, expected / divisor[:, None]).marginals
        marginals = denoiser.predict(attrs.evolve(query, guide=guide, tuning=tuning)).marginals
        for name in ("log_probability", "entropy"):
            ours, theirs = (getattr(source, name)[query.wanted] for source in (marginals, expected))
            assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg=f"{name} under {guide.name}")


def _credit(denoiser: Denoiser, query: Query, tolerance: float) -> None:
    """Under `credit` tokens gain what the query's credits say, and the best ones earn."""
    free = _table(denoiser.predict(query), query, denoiser.vocab_size)
    rows, positions = _places(query)
    token = np.full((*query.wanted.shape, 1), -1, np.int32)
    token[rows[::2], positions[::2], 0] = free[::2].argmin(1)  # what was best before need not be so now
    credits = Credits(query.wanted, token, np.where(token < 0, 0, 5).astype(np.float32))
    guide = Credit(3.0, decay=0.9)
    expected = NumpyPrediction(free.astype(np.float64), query.wanted, query.restriction, guide, credits=credits)
    found = denoiser.predict(attrs.evolve(query, guide=guide, credits=credits))
    for name in ("log_probability", "entropy"):
        ours, theirs = (getattr(source.marginals, name)[query.wanted] for source in (found, expected))
        assert_allclose(ours, theirs, rtol=1e-3, atol=10 * tolerance, err_msg=f"{name} under credit")
    ours, theirs = (source.credits for source in (found, expected))
    assert ours is not None and theirs is not None, "under credit a prediction must say what the rows have earned"
    assert_allclose(ours.amount.sum(2), theirs.amount.sum(2), rtol=1e-3, atol=10 * tolerance, err_msg="credit earned")


def _rows_alone(denoiser: Denoiser, query: Query, tolerance: float) -> None:
    """Each row alone without padding, and all backwards, against the batch."""
    whole = denoiser.predict(query).marginals
    for row in range(len(query.tokens)):
        length = int(query.valid[row].sum())
        alone = denoiser.predict(_taken(query, [row], length)).marginals
        _near(alone.log_probability[0], whole.log_probability[row, :length], tolerance, "alone")
        _near(alone.entropy[0], whole.entropy[row, :length], tolerance, "alone")
    order = list(range(len(query.tokens)))[::-1]
    backwards = denoiser.predict(_taken(query, order, query.tokens.shape[1])).marginals
    _near(backwards.log_probability, whole.log_probability[order], tolerance, "in another order")


def _near(alone: Floats, other: Floats, tolerance: float, how: str) -> None:
    assert_allclose(alone, other, rtol=tolerance, atol=tolerance, err_msg=f"a row says something else {how}")


def _taken(query: Query, rows: list[int], length: int) -> Query:
    def cut(array: Ints) -> Ints:
        return array[rows, :length]

    restriction = Restriction(query.restriction.sets, cut(query.restriction.index))
    kept = Rows([query.rows.keys[row] for row in rows], query.rows.steps[rows])
    return Query(
        cut(query.tokens), query.valid[rows, :length], query.wanted[rows, :length], query.fixed[rows, :length],
        restriction, query.guide, kept,
    )  # fmt: skip
