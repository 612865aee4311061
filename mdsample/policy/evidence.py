"""The kinds of evidence that our parts need; a new paper adds one here, and the part that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools, Doubles, Floats, Ints, any_in_row, arange64
from mdsample.core.credits import Credits
from mdsample.policy.view import Batch, Evidence, Predicted, Seen, Trials, View


@final
@attrs.frozen
class WrittenLogProb(Evidence):
    """Log-probability of the token at each written position in this prediction, `[B, L]` float32, nats.

    NaN in blanks and fixed text. It is what the model puts out there, under the guide and the constraints as elsewhere;
    a network has seen the token, it is not left out.
    """

    def wanted(self, batch: Batch) -> Bools:
        """The written positions."""
        return batch.initially_blank & ~batch.blank

    def value(self, seen: Seen) -> Floats:
        """One question for all of them."""
        batch = seen.view.batch
        out = np.full(batch.tokens.shape, np.nan, np.float32)
        row, position = (index.astype(np.int32) for index in np.nonzero(self.wanted(batch)))
        if len(row):
            out[row, position] = seen.prediction.log_probabilities(row, position, batch.tokens[row, position])
        return out


@final
@attrs.frozen
class EndProbability(Evidence):
    """Probability of the model's end tokens together at each position on offer, `[B, L]` float64; NaN elsewhere."""

    def value(self, seen: Seen) -> Doubles:
        """One question for each end token."""
        eligible = seen.view.eligible
        row, position = (index.astype(np.int32) for index in np.nonzero(eligible))
        out = np.full(eligible.shape, np.nan)
        out[row, position] = 0
        for end in seen.view.batch.tokenizer.ends if len(row) else ():
            logged = seen.prediction.log_probabilities(row, position, np.full(len(row), end, np.int32))
            out[row, position] += np.exp(logged.astype(np.float64))
        return out


@final
@attrs.frozen
class Divergence(Evidence):
    """KL(prediction ‖ prediction before) of the last `count` predictions, this one first, `[B, n, L]` float32, nats.

    +inf unless both predictions had the position on offer. n is `count`, but at most one more than the steps of any
    row, so that a row with fewer predictions than `count` has +inf somewhere. Predictions are compared where the model
    is; what is kept of a row is its last prediction, on the device, until its next one or until it leaves.
    """

    count: int

    @property
    def depth(self) -> int:
        """`count`."""
        return self.count

    def value(self, seen: Seen) -> Floats:
        """Compares this prediction with each row's last one."""
        eligible = seen.view.eligible
        most = int(seen.view.batch.step.max(initial=0)) + 1
        out = np.full((len(eligible), min(self.count, most), eligible.shape[1]), np.inf, np.float32)
        both = np.zeros_like(eligible)
        lines: dict[Predicted, list[int]] = {}
        before = np.zeros(len(eligible), np.int32)
        for line, last in enumerate(seen.before):
            if last is None:
                continue
            width = min(eligible.shape[1], len(last.eligible))  # as wide as the batch of then or of now
            both[line, :width] = eligible[line, :width] & last.eligible[:width]
            known = last.value[: out.shape[1] - 1, :width]
            out[line, 1 : 1 + len(known), :width] = known
            lines.setdefault(last.prediction, []).append(line)
            before[line] = last.line
        for prediction, group in lines.items():
            which, position = np.nonzero(both[group])
            row = np.array(group, np.int32)[which]
            out[row, 0, position] = seen.prediction.divergence(row, position.astype(np.int32), prediction, before[row])
        return out

    def remembered(self, seen: Seen, value: NDArray[Any]) -> Sequence[_Last]:
        """Each row's part of this prediction."""
        eligible = seen.view.eligible
        return [_Last(seen.prediction, line, eligible[line], value[line]) for line in range(len(eligible))]


@attrs.frozen(eq=False)
class _Last:
    """One row's part of a prediction."""

    prediction: Predicted
    #: the row's place in it
    line: int
    #: what was on offer, `[L]`
    eligible: Bools
    #: the divergences as of then, `[n, L]`
    value: Floats


@final
@attrs.frozen
class CreditLeft(Evidence):
    """Credit of the tokens that were a position's best so far, this prediction included, `[B, L, K]` float32.

    Only a prediction under the guide `credit` has it. It depends on all predictions that a row had; what is kept of
    them is a few tokens and numbers a position.
    """

    @property
    def depth(self) -> int:
        """As many predictions as there were."""
        return 2**31 - 1

    def value(self, seen: Seen) -> Floats:
        """As the prediction says; `ValueError` if it knows of no credit."""
        return _credits(seen).amount

    def remembered(self, seen: Seen, value: NDArray[Any]) -> Sequence[Credits]:
        """Each row's part of it."""
        credits, width = _credits(seen), value.shape[1]
        return [credits.take(np.array([line]), width) for line in range(len(value))]


def _credits(seen: Seen) -> Credits:
    credits = seen.prediction.credits
    if credits is None:
        raise ValueError("a part needs CreditLeft, which only a prediction under the guide credit has; add it")
    return credits


@final
@attrs.frozen
class TrialEntropy(Evidence):
    """Mean entropy of the blanks that would remain if a position held its most probable token, `[B, L]` float64, nats.

    Tried are the `k` eligible positions of lowest entropy, lower positions first among equals; +inf elsewhere, and in
    rows where only one position is on offer: there is nothing to compare, so they are spared the pass.
    """

    k: int

    @property
    def passes(self) -> int:
        """`k`."""
        return self.k

    def trials(self, view: View) -> Trials | None:
        """One for each position that is tried."""
        entropy = np.where(view.eligible, view.marginals.entropy, np.inf)
        tried = np.zeros_like(view.eligible)
        np.put_along_axis(tried, np.argsort(entropy, axis=1, kind="stable")[:, : self.k], True, axis=1)
        tried &= view.eligible
        row, position = (index.astype(np.int32) for index in np.nonzero(tried & (tried.sum(1) > 1)[:, None]))
        return Trials(row, position, view.marginals.token[row, position]) if len(row) else None

    def value(self, seen: Seen) -> Doubles:
        """What the trials leave."""
        out = np.full(seen.view.eligible.shape, np.inf)
        if seen.trials is not None and seen.answer is not None:
            row, position = seen.trials.row, seen.trials.position
            blank = seen.view.batch.blank[row]
            blank[arange64(len(row)), position] = False
            # a running sum: it does not depend on how wide the batch is
            total = np.cumsum(np.where(blank, seen.answer.entropy, 0), 1, dtype=np.float64)[:, -1]
            out[row, position] = total / np.maximum(blank.sum(1), 1)
        return out


@final
@attrs.frozen
class EarlierTexts(Evidence):
    """A row's texts at its last passes in a row in which its window had no blank, oldest first, `[B, n, L]` int32.

    At most `count` of them; −1 everywhere beyond a row's own number, which matches no text.
    """

    count: int

    @property
    def depth(self) -> int:
        """`count`."""
        return self.count

    def value(self, seen: Seen) -> Ints:
        """What was kept, side by side."""
        texts: list[Sequence[Ints]] = [() if before is None else before for before in seen.before]
        tokens = seen.view.batch.tokens
        out = np.full((len(tokens), max(map(len, texts), default=0), tokens.shape[1]), -1, np.int32)
        for line, (row, own) in enumerate(zip(texts, tokens, strict=True)):
            for number, text in enumerate(row):
                out[line, number] = own  # beyond the row is padding, then as now
                out[line, number, : len(text)] = text
        return out

    def remembered(self, seen: Seen, value: NDArray[Any]) -> Sequence[Any]:
        """The texts so far with this one; nothing of a row that has a blank on offer."""
        filling, batch = any_in_row(seen.view.eligible), seen.view.batch
        length = batch.valid.sum(1).tolist()
        return [
            None if filling[line] else [*(before or ()), batch.tokens[line, : length[line]]][-self.count :]
            for line, before in enumerate(seen.before)
        ]


@final
@attrs.frozen
class StandingStill(Evidence):
    """In how many of its last predictions in a row a row's text was as in this one, `[B]` int64, at most `count`.

    The text is what would stand there if the window were filled with the most probable tokens now.
    """

    count: int

    @property
    def depth(self) -> int:
        """`count`."""
        return self.count

    def value(self, seen: Seen) -> NDArray[np.int64]:
        """Compares with the last one."""
        texts = _filled_in(seen.view)
        times = [
            0 if last is None or not np.array_equal(last.text, text) else min(last.times + 1, self.count)
            for last, text in zip(seen.before, texts, strict=True)
        ]
        return np.array(times, np.int64)

    def remembered(self, seen: Seen, value: NDArray[Any]) -> Sequence[_Text]:
        """The text, and for how long it has been the same."""
        return [_Text(text, times) for text, times in zip(_filled_in(seen.view), value.tolist(), strict=True)]


@attrs.frozen(eq=False)
class _Text:
    text: Ints
    times: int


def _filled_in(view: View) -> list[Ints]:
    """Each row with the most probable tokens in its window, −1 in later blanks, without padding."""
    batch = view.batch
    whole = np.where(view.window, view.marginals.token, np.where(batch.blank, np.int32(-1), batch.tokens))
    return [row[:length] for row, length in zip(whole, batch.valid.sum(1).tolist(), strict=True)]
