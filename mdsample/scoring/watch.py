"""Along the way: what a slot says while the rest is still being written, from the forward passes that are made anyway.

While a slot is blank, the entropies of its places sum to a bound on the uncertainty of what will stand there, and the
most probable tokens are the answer that would be given now (arXiv 2510.19990). A text that is expected there has the
product of its marginals as its probability; since white space around a slot's text does not count, so does the same
text after a space, and the two add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import final

import attrs
import numpy as np

from mdsample.core.arrays import Longs
from mdsample.core.rows import Key
from mdsample.core.template import Template
from mdsample.core.tokens import until_end
from mdsample.core.uniforms import row_key
from mdsample.errors import WatchError
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.sampling.prepared import Prepared


@attrs.frozen
class SlotReading:
    """One forward pass, seen from the slot."""

    #: steps that the row had taken before
    step: int
    #: blanks outside of the slot, and all that there were at the beginning
    blanks: int
    outside: int
    #: Σ of the marginal entropies of the slot's blanks, nats
    entropy: float
    #: what would stand in the slot if it were filled now
    text: str
    #: of the text that is expected, nats, −inf if what stands there already is something else; `None`: none is expected
    log_probability: float | None

    @property
    def written(self) -> float:
        """The share of what is outside of the slot that is written."""
        return 1 - self.blanks / self.outside if self.outside else 1.0


@attrs.frozen(eq=False)
class _Watched:
    """What is known of a row beforehand."""

    #: positions of the slot, and of all blanks outside of it
    slot: Longs
    outside: Longs
    #: tokens that are expected in the slot, `[ways of writing the text, places]`; no row: none are expected
    expected: Longs
    readings: list[SlotReading] = attrs.field(factory=list[SlotReading])


@final
class SlotWatcher(Denoiser):
    """A denoiser that watches a slot: every look sees the slot's blanks too, and what it says of them is taken down.

    It is as good as the denoiser inside, so results stay what they are. With an approximate cache they would not, as
    such caches keep what is not wanted: `WatchError`.
    """

    def __init__(self, inner: Denoiser, template: Template, slot: str, seed: int) -> None:
        """`seed`: of the sampler that will ask. Raises `WatchError` if the template has no such slot."""
        if slot not in template.slots:
            raise WatchError(f"there is no slot {slot!r} to watch; slots here: {', '.join(template.slots)}")
        if inner.cache is not None and inner.cache.approximate:
            raise WatchError(
                f"to watch a slot would change what the cache {str(inner.cache)!r} keeps, and so the results; "
                "leave one of them out"
            )
        if inner.noise != "mask":
            raise WatchError(
                f"{inner.name} was trained on random tokens: what it says of a blank depends on those that it is shown "
                "there, so a slot cannot be watched; watch nothing"
            )
        if template.ranged:
            raise WatchError(
                f"slot {template.ranged[0].name!r} has no one length, and each is a run of its own; write one length, "
                "or watch nothing"
            )
        super().__init__(inner.about)
        self._inner, self._template, self._slot, self._seed = inner, template, slot, seed
        self._rows: dict[Key, _Watched] = {}

    def track(self, row: Prepared, expected: str | None = None) -> None:
        """Watches a row; `expected`: the text whose probability is asked for; `TemplateError` if it is too long."""
        number = self._template.slots.index(self._slot)
        slot, blank = np.asarray(row.slot), np.asarray(row.blank)
        tokens = [] if expected is None else self._written(expected)
        self._rows[row_key(self._seed, row.id)] = _Watched(
            np.flatnonzero(slot == number),
            np.flatnonzero(blank & (slot != number)),
            np.array(tokens, np.int64).reshape(len(tokens), int((slot == number).sum())),
        )

    def _written(self, text: str) -> list[list[int]]:
        """The token strings that read as this text; as it stands it must fit the slot."""
        variants = [self._template.content(self._slot, text, self.tokenizer)]
        if text and not text[0].isspace():
            # a tokenizer need not know the space, and the slot need not have room for it
            with suppress(ValueError):
                variants.append(self._template.content(self._slot, f" {text}", self.tokenizer))
        # to some tokenizers the space is nothing
        return [list(tokens) for tokens in dict.fromkeys(map(tuple, variants))]

    def readings(self, row: int | str) -> tuple[SlotReading, ...]:
        """What was taken down of a row, in the order of its steps; it is then forgotten."""
        watched = self._rows.pop(row_key(self._seed, row), None)
        return () if watched is None else tuple(watched.readings)

    def predict(self, query: Query) -> Prediction:
        """The look of the denoiser inside, at the slot's blanks as well."""
        mask = self.tokenizer.mask_id
        wanted, looks = query.wanted.copy(), list[tuple[int, _Watched, Longs]]()
        for line, key in enumerate(query.rows.keys):
            watched = self._rows.get(key)
            if watched is None:
                continue
            # the mask token is never written, and a slot holds no fixed text
            blanks = watched.slot[query.tokens[line, watched.slot] == mask]
            if len(blanks):
                wanted[line, blanks] = True
                looks.append((line, watched, blanks))
        prediction = self._inner.predict(attrs.evolve(query, wanted=wanted))
        for (line, watched, blanks), logged in zip(looks, _expected(prediction, query, looks), strict=True):
            tokens = query.tokens[line].copy()
            tokens[blanks] = prediction.marginals.token[line, blanks]
            ids: list[int] = tokens[watched.slot].tolist()
            watched.readings.append(
                SlotReading(
                    int(query.rows.steps[line]),
                    int((query.tokens[line, watched.outside] == mask).sum()),
                    len(watched.outside),
                    float(prediction.marginals.entropy[line, blanks].sum(dtype=np.float64)),
                    self.tokenizer.decode(until_end(ids, self.tokenizer)).strip(),
                    logged,
                )
            )
        return prediction


def _expected(prediction: Prediction, query: Query, looks: Sequence[tuple[int, _Watched, Longs]]) -> list[float | None]:
    """log p of what is expected in the slot of each row, `None` where nothing is; one question for all of them."""
    lines, positions, tokens, of = list[int](), list[int](), list[int](), list[tuple[int, int]]()
    sums = [np.zeros(len(watched.expected)) for _, watched, _ in looks]
    for number, (line, watched, blanks) in enumerate(looks):
        open_ = np.isin(watched.slot, blanks)
        for way, wanted in enumerate(watched.expected):
            # what is committed decides by itself
            if not np.array_equal(wanted[~open_], query.tokens[line, watched.slot[~open_]]):
                sums[number][way] = -np.inf
            lines += [line] * len(blanks)
            positions += blanks.tolist()
            tokens += wanted[open_].tolist()
            of += [(number, way)] * len(blanks)
    if lines:
        logged = prediction.log_probabilities(*(np.array(x, np.int32) for x in (lines, positions, tokens)))
        for (number, way), value in zip(of, logged.tolist(), strict=True):
            sums[number][way] += value
    return [float(np.logaddexp.reduce(ways)) if len(ways) else None for ways in sums]


def plain(readings: Sequence[SlotReading]) -> list[Mapping[str, object]]:
    """Moments as JSON objects; JSON has no infinity, so −inf is null."""
    return [
        {
            "step": reading.step,
            "written": round(reading.written, 4),
            "entropy": reading.entropy,
            "text": reading.text,
            **(
                {}
                if reading.log_probability is None
                else {"log_probability": reading.log_probability if reading.log_probability > -np.inf else None}
            ),
        }
        for reading in readings
    ]
