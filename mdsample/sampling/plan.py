"""A policy made ready for one model and one canvas: everything that can be refused is refused here, before a pass."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import somewhere
from mdsample.core.canvas import Canvas
from mdsample.core.restriction import Restriction
from mdsample.core.uniforms import row_key
from mdsample.errors import PolicyError
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.complete import CompletePolicy, complete
from mdsample.policy.constraint import Rule
from mdsample.policy.guide import Cfg


@attrs.frozen(eq=False)
class Plan:
    """A policy made ready for one model and one canvas: what `start` checks once and `step` uses."""

    policy: CompletePolicy
    #: mask and unused ids banned, lasting constraints folded in; over the whole canvas
    restriction: Restriction
    #: constraints that depend on what has been committed
    dynamic: tuple[Rule, ...]
    #: Philox keys of the rows
    keys: tuple[tuple[int, int], ...]
    #: forward passes per step
    passes: int
    #: how many of the last looks are compared with the one before each, for parts that ask
    shifts: int
    #: whether a part asks what a look says of the tokens that stand
    rereads: bool


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
    allowed = np.arange(denoiser.vocab_size) < tokenizer.size
    allowed[tokenizer.mask_id] = False
    shape = canvas.tokens.shape
    restriction = Restriction(allowed[None], np.zeros(shape, np.int32), np.full(shape, -1, np.int32))
    dynamic: list[Rule] = []
    try:
        for part in policy.parts:
            part.check(canvas, tokenizer)
            for other in whole.parts:
                if other is not part and (reason := part.conflict(other, tokenizer)):
                    raise PolicyError(reason)
        for constraint in sorted(whole.constraints, key=lambda c: not c.static):
            rule = constraint.bind(tokenizer, canvas, restriction)
            if constraint.static:
                restriction = restriction & rule.restrict(canvas.tokens, canvas.blank, canvas.slot)
            else:
                dynamic.append(rule)
    except PolicyError:
        raise
    except ValueError as fault:
        raise PolicyError(str(fault)) from fault
    _feasible(restriction, canvas)
    keys = tuple(row_key(seed, row) for row in canvas.ids)
    passes = (1 + whole.order.tries) * (2 if isinstance(whole.guide, Cfg) else 1)
    # more looks than this no row ever has
    most = int(canvas.blank.sum(1).max(initial=0)) + whole.revise.budget
    shifts = min(most, max((part.shifts for part in policy.parts), default=0))
    rereads = any(part.rereads for part in policy.parts)
    return Plan(whole, restriction, tuple(dynamic), keys, passes, shifts, rereads)


def _feasible(restriction: Restriction, canvas: Canvas) -> None:
    empty = ~somewhere(restriction.sets)
    bad = np.argwhere(canvas.blank & empty[restriction.index])
    if len(bad):
        row, position = bad[0].tolist()
        raise PolicyError(
            f"the constraints leave no token for position {position} of row {canvas.ids[row]!r}; loosen one of them"
        )
