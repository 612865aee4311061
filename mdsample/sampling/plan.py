"""A policy made ready for one model and one canvas: everything that can be refused is refused here, before a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from mdsample.core.arrays import Indices, Ints
from mdsample.core.canvas import Canvas
from mdsample.core.restriction import Restriction
from mdsample.core.tokens import Tokenizer
from mdsample.core.uniforms import row_key
from mdsample.errors import PolicyError
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.complete import CompletePolicy, complete
from mdsample.policy.guide import Cfg
from mdsample.policy.holding import Holding
from mdsample.policy.view import Batch, Evidence
from mdsample.sampling.conditioning import CONDITIONING
from mdsample.sampling.languages import Available, both, require_texts
from mdsample.sampling.state import Event, State


@attrs.frozen(eq=False)
class Plan:
    """A policy made ready for one model and one canvas: what `start` checks once and `step` uses."""

    policy: CompletePolicy
    #: mask and unused ids banned, constraints folded in; over the whole canvas
    restriction: Restriction
    #: what of the languages is settled by what is written
    languages: Available
    #: Philox keys of the rows
    keys: tuple[tuple[int, int], ...]
    #: the most forward passes that a step takes a row
    passes: int
    #: what parts need beyond the marginals
    evidence: tuple[Evidence, ...]
    #: the model that it was made for
    denoiser: Denoiser
    #: of running rows, their last step and what evidence kept of it; a cache (`mdsample.sampling.previous`), which
    #: holds predictions so that states and traces need not
    kept: dict[int, tuple[Event, Mapping[Evidence, Any]]] = attrs.field(factory=dict[int, Any], repr=False)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self.denoiser.tokenizer

    @property
    def holding(self) -> Holding | None:
        """The revision that holds windows; `None` if none does."""
        return self.policy.revise if isinstance(self.policy.revise, Holding) else None

    @property
    def redraws(self) -> bool:
        """Whether each pass draws all of a window again."""
        return self.holding is not None and self.holding.redraws

    def batch(self, state: State, rows: Ints) -> Batch:
        """What parts may see of some rows of a state."""
        model = self.denoiser
        return state.batch(rows, self.passes, self.tokenizer, model.block, model.led, self.redraws)

    def take(self, rows: Indices) -> Plan:
        """The plan of some of its rows, in any number, as `State.take` takes them; it has kept nothing of them."""
        lines: dict[int, list[int]] = {}
        for line, row in enumerate(rows.tolist() if self.restriction.spans else ()):
            lines.setdefault(row, []).append(line)
        spans = [attrs.evolve(span, row=line) for span in self.restriction.spans for line in lines.get(span.row, ())]
        restriction = Restriction(self.restriction.sets, self.restriction.index[rows], tuple(spans))
        return attrs.evolve(
            self,
            restriction=restriction,
            languages=self.languages.under(restriction),
            keys=tuple(self.keys[int(row)] for row in rows),
            kept={},
        )


def make_plan(policy: Policy, seed: int, denoiser: Denoiser, canvas: Canvas) -> Plan:
    """Checks policy, canvas and model together; raises `PolicyError`."""
    whole, tokenizer = complete(policy), denoiser.tokenizer
    longest = int(canvas.valid.sum(1).max(initial=0))
    if longest > denoiser.max_length:
        raise PolicyError(f"a row has {longest} tokens; {denoiser.name} takes at most {denoiser.max_length}")
    if (canvas.tokens[canvas.blank] != tokenizer.mask_id).any():
        raise PolicyError(
            f"the canvas was made for another model: its blanks are not token {tokenizer.mask_id}; "
            "make it with template.canvas(model.tokenizer, …) of this model"
        )
    if ((canvas.tokens < 0) | (canvas.tokens >= denoiser.vocab_size)).any():
        raise PolicyError(f"the canvas has token ids outside 0..{denoiser.vocab_size - 1}")
    if denoiser.noise != "mask" and isinstance(whole.guide, Cfg):
        raise PolicyError(
            f"cfg hides the fixed text behind mask tokens, and {denoiser.name} was trained on random tokens instead; "
            "leave cfg out"
        )
    block = denoiser.block
    if block is not None and (reason := whole.window.misfit(block) or canvas.unseen(block, denoiser.led)):
        raise PolicyError(reason)
    allowed = np.arange(denoiser.vocab_size) < tokenizer.size
    allowed[tokenizer.mask_id] = False
    restriction = Restriction(allowed[None], np.zeros(canvas.tokens.shape, np.int32))
    try:
        for part in policy.parts:
            part.check(canvas, tokenizer)
            for other in whole.parts:
                if other is not part and (reason := part.conflict(other, tokenizer)):
                    raise PolicyError(reason)
        for constraint in whole.constraints:
            restriction = both(restriction, constraint.bind(tokenizer, canvas, denoiser.vocab_size))
        require_texts(restriction, canvas, tokenizer.ends)
    except PolicyError:
        raise
    except ValueError as fault:
        raise PolicyError(str(fault)) from fault
    keys = tuple(row_key(seed, row) for row in canvas.ids)
    evidence = tuple(dict.fromkeys(needed for part in whole.parts for needed in part.needs))
    if denoiser.conditioned:
        evidence = (*evidence, CONDITIONING)
    passes = (1 + sum(needed.passes for needed in evidence)) * whole.guide.passes
    return Plan(whole, restriction, Available(restriction), keys, passes, evidence, denoiser)
