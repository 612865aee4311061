"""Text out of masked diffusion language models: policies that add up, one loop, stated errors.

import mdsample

model = mdsample.load("tiny-gsm")
policy = mdsample.parse("med+early-exit")
template = mdsample.Template.parse(model.template)
canvas = template.canvas(model.tokenizer, [{"prompt": "Ann has 3 coins. Ben has 4 more than Ann. How many …"}])
result = mdsample.Sampler(policy, seed=0).run(model, canvas)
print(result.rows[0].slots["answer"], result.rows[0].nfe)
"""

from mdsample import exact
from mdsample._version import __version__
from mdsample.backend.load import load
from mdsample.core.canvas import Canvas
from mdsample.core.marginals import Marginals
from mdsample.core.template import Template
from mdsample.errors import ModelError, PolicyError, ScoreError, SpecError, TemplateError, TraceError
from mdsample.models.chat import chat
from mdsample.models.inspect import Facts, inspect
from mdsample.policy.base import Part, Policy
from mdsample.policy.constraint import Allow, Ban, Characters, Choices, Constraint
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Cfg, Guide, NoGuide
from mdsample.policy.order import (
    Confidence,
    Entropy,
    Fixed,
    LeftToRight,
    Lookahead,
    Margin,
    Order,
    PositionBiased,
    Random,
    RightToLeft,
)
from mdsample.policy.parsing import parse
from mdsample.policy.presets import (
    ar_med,
    dparallel,
    dream,
    dream_entropy,
    dus,
    eb,
    fast_dllm,
    fast_dllm_factor,
    fast_dllm_pp,
    klass,
    llada,
    med,
    one_by_one,
    p2,
    remdm,
    top_k_margin,
    top_k_probability,
)
from mdsample.policy.revise import BelowConfidence, Never, P2Remask, RandomRevise, RemdmRemask, Revise
from mdsample.policy.selection import (
    AboveConfidence,
    BelowEntropy,
    CumulativeConfidence,
    EntropyBound,
    ErrorBudget,
    Factor,
    Frechet,
    LinearTime,
    P2Reveal,
    RandomSelection,
    RemdmReveal,
    Selection,
    Stable,
    Steps,
    Top,
)
from mdsample.policy.stop import AfterPass, BeforePass, Budget, EarlyExit, Ended, Stop
from mdsample.policy.view import Batch, Ranked, View
from mdsample.policy.window import Blocks, Dilated, Whole, Window
from mdsample.sampling.result import Commit, Result, Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.state import Event, Outcome, State
from mdsample.sampling.trace import Trace
from mdsample.scoring.score import ChainRule, MarginalProduct, MonteCarloBound, Scores, score

__all__ = [
    "AboveConfidence",
    "AfterPass",
    "Allow",
    "Ban",
    "Batch",
    "BeforePass",
    "BelowConfidence",
    "BelowEntropy",
    "Blocks",
    "Budget",
    "Canvas",
    "Cfg",
    "ChainRule",
    "Characters",
    "Choices",
    "Commit",
    "Confidence",
    "Constraint",
    "CumulativeConfidence",
    "Dilated",
    "Draw",
    "EarlyExit",
    "Ended",
    "Entropy",
    "EntropyBound",
    "ErrorBudget",
    "Event",
    "Factor",
    "Facts",
    "Fixed",
    "Frechet",
    "Greedy",
    "Guide",
    "LeftToRight",
    "LinearTime",
    "Lookahead",
    "Margin",
    "MarginalProduct",
    "Marginals",
    "ModelError",
    "MonteCarloBound",
    "Never",
    "NoGuide",
    "Order",
    "Outcome",
    "P2Remask",
    "P2Reveal",
    "Part",
    "Policy",
    "PolicyError",
    "PositionBiased",
    "Random",
    "RandomRevise",
    "RandomSelection",
    "Ranked",
    "RemdmRemask",
    "RemdmReveal",
    "Result",
    "Revise",
    "RightToLeft",
    "Row",
    "Sampler",
    "ScoreError",
    "Scores",
    "Selection",
    "SpecError",
    "Stable",
    "State",
    "Steps",
    "Stop",
    "Temperature",
    "Template",
    "TemplateError",
    "Top",
    "Trace",
    "TraceError",
    "View",
    "Whole",
    "Window",
    "__version__",
    "ar_med",
    "chat",
    "dparallel",
    "dream",
    "dream_entropy",
    "dus",
    "eb",
    "exact",
    "fast_dllm",
    "fast_dllm_factor",
    "fast_dllm_pp",
    "inspect",
    "klass",
    "llada",
    "load",
    "med",
    "one_by_one",
    "p2",
    "parse",
    "remdm",
    "score",
    "top_k_margin",
    "top_k_probability",
]
