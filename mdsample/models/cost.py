"""What a forward pass must cost, and the seconds that a machine takes for it at least.

A roofline: a pass reads every weight that it meets and does its multiplications, and takes as long as the slower of the
two. Reading the weights costs the same for one token as for many, so rows are nearly free until multiplying takes
longer. Left out are norms, softmaxes, the reduction of the vocabulary, the policy and the launches: real passes take
longer, never less than is predicted from a machine's true rates.
"""

from __future__ import annotations

import attrs

from mdsample.models.families.trunk import Trunk


def _above_0(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be above 0 and finite; got {value!r}")


@attrs.frozen
class Machine:
    """What a device reaches in large reads and large matrix products; `ValueError` for what is not above 0."""

    #: bytes read from memory a second
    bandwidth: float = attrs.field(validator=_above_0)
    #: operations a second; a multiplication and its addition are two
    rate: float = attrs.field(validator=_above_0)


@attrs.frozen
class Cost:
    """What a forward pass must do."""

    operations: float
    #: bytes read from memory: weights, and kept keys and values
    bytes: float

    def reading(self, machine: Machine) -> float:
        """Seconds that its reads take."""
        return self.bytes / machine.bandwidth

    def multiplying(self, machine: Machine) -> float:
        """Seconds that its operations take."""
        return self.operations / machine.rate

    def seconds(self, machine: Machine) -> float:
        """The longer of the two."""
        return max(self.reading(machine), self.multiplying(machine))


def pass_cost(trunk: Trunk, rows: float, length: int, computed: int, wanted: int, item: int) -> Cost:
    """A forward pass of `rows` rows (a mean may be a fraction).

    Each row has `length` tokens that attention sees, `computed` tokens that go through the trunk (all but those whose
    keys and values a cache has) and `wanted` places of which logits are computed, which is what the last layer is
    computed at. `item`: bytes of one weight. Of routed experts those are read that some token goes through, on average
    if tokens choose alike and on their own.
    """
    d, last = trunk.d_model, trunk.layers - 1
    operations, weights = 2.0 * wanted * d * trunk.vocab_size * rows, float(d * trunk.vocab_size)
    # a soft embedding takes the embedding once more
    operations, weights = (2 * operations, 2 * weights) if trunk.conditioned else (operations, weights)
    cached = 0
    for layer in range(trunk.layers):
        kv_heads, size = trunk.heads_of(layer)
        inner, kv = trunk.heads * size, kv_heads * size
        seen, attention = 4 * inner * length, 2 * d * (inner + kv)
        cached += 2 * kv
        asking = wanted if layer == last else computed
        met, read = _middle(trunk, layer, rows * asking)
        # the last layer needs keys and values everywhere, all else where it is looked at
        operations += rows * (asking * (2 * (attention - 2 * d * kv + met) + seen) + computed * 4 * d * kv)
        weights += attention + read
    kept = rows * length * cached if computed < length else 0
    return Cost(operations, item * (weights + kept))


@attrs.frozen
class Pace:
    """How a policy fills a text: passes that follow one another, and passes that a text is in, guesses counted."""

    name: str
    rounds: float = attrs.field(validator=_above_0)
    nfe: float = attrs.field(validator=_above_0)

    def __attrs_post_init__(self) -> None:
        """`ValueError` if there are more rounds than passes."""
        if self.nfe < self.rounds:
            raise ValueError(f"{self.name}: a text is in at least as many passes as follow one another; got {self}")

    @property
    def rows(self) -> float:
        """Rows of one text in a pass, on average."""
        return self.nfe / self.rounds


@attrs.frozen(kw_only=True)
class Texts:
    """Texts that are filled together."""

    #: rows
    batch: int
    #: tokens of each, and how many of them are blank
    length: int
    blanks: int
    #: places that are looked at in a pass, the block of a cache
    window: int


def text_seconds(trunk: Trunk, machine: Machine, texts: Texts, pace: Pace, cache: str, item: int) -> float:
    """Seconds until all of the texts are filled, each at the same pace; `item`: bytes of one weight.

    With the cache `none` every pass computes all; with `dual` the first pass in a window does, the others compute the
    window; with `exact` the very first pass computes all, the first one in a block that block and the one before, the
    others the block.
    """
    windows = min(float(-(-texts.blanks // texts.window)), pace.rounds)
    wanted, rest = min(texts.window, texts.blanks), pace.rounds - windows

    def seconds(computed: int) -> float:
        computed = min(computed, texts.length)
        cost = pass_cost(trunk, texts.batch * pace.rows, texts.length, computed, min(wanted, computed), item)
        return cost.seconds(machine)

    whole = seconds(texts.length)
    match cache:
        case "exact":
            later = max(0.0, windows - 1)
            return (windows - later) * whole + later * seconds(2 * texts.window) + rest * seconds(texts.window)
        case "dual":
            return windows * whole + rest * seconds(texts.window)
        case _:
            return pace.rounds * whole


def _middle(trunk: Trunk, layer: int, tokens: float) -> tuple[float, float]:
    """Weights of a layer's gated middle that one token meets, and those that `tokens` tokens meet together."""
    e, d = trunk.experts, trunk.d_model
    if e is None or not trunk.sparse(layer):
        return 3 * d * trunk.mlp_size, 3 * d * trunk.mlp_size
    always = e.count * d + 3 * d * (e.shared_size if trunk.gemma is None else trunk.mlp_size)
    opened = e.count * (1 - (1 - e.chosen / e.count) ** tokens)
    return always + 3 * d * e.size * e.chosen, always + 3 * d * e.size * opened
