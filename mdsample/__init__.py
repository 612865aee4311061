"""Typed, composable sampling for masked diffusion language models. One loop, every published decoding rule.

    import mdsample

    model = mdsample.load("tiny-gsm")
    row = mdsample.sample(model, "Ann has 3 coins. Ben has 4 more than Ann. How many …")    # one prompt: a Row
    rows = mdsample.sample(model, ["…", "…"], policy="med+early-exit", seed=0)              # several: Samples
    for row in mdsample.stream(model, ["…", "…"]): ...                                      # as they finish
    for step in mdsample.watch(model, "…"): print(step.text)                                # a canvas fills itself

The long way, for research: `Template.canvas` makes a `Canvas`, and a `Sampler` runs a `Policy` on it, whole (`run`) or
step by step (`plan`, `start`, `step`). A policy is a sum of parts; every part and every preset is here by name.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mdsample._version import __version__
from mdsample.backend.load import load
from mdsample.core.canvas import Canvas
from mdsample.core.marginals import Marginals
from mdsample.core.template import Template
from mdsample.errors import (
    MdsampleError,
    ModelError,
    PolicyError,
    ScoreError,
    SpecError,
    TemplateError,
    TraceError,
)
from mdsample.models.chat import chat
from mdsample.models.inspect import Facts, inspect
from mdsample.policy.base import Part, Policy
from mdsample.policy.budget import ErrorBudget, TvBudget
from mdsample.policy.constraint import Allow, Ban, Characters, Constraint
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Annealing, Cfg, Cooling, Credit, Guide, NoGuide, Repetition
from mdsample.policy.holding import Edit, Holding, Renoise
from mdsample.policy.language import Choices, Date, Integer, Language, Number, Regex
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
    DreamSteps,
    EntropyBound,
    Factor,
    Frechet,
    Hierarchy,
    LinearTime,
    P2Reveal,
    RandomSelection,
    RemdmReveal,
    Selection,
    Stable,
    Steps,
    Top,
)
from mdsample.policy.stop import AfterPass, BeforePass, Budget, Converged, EarlyExit, Ended, Stop, Until
from mdsample.policy.view import Batch, Evidence, Ranked, View
from mdsample.policy.window import Blocks, Dilated, LedBlocks, RowBlocks, Whole, Window
from mdsample.sampling.api import Step, sample, stream, watch
from mdsample.sampling.engine import Engine
from mdsample.sampling.result import Result, Samples
from mdsample.sampling.row import Commit, Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.state import Event, Outcome, State
from mdsample.sampling.trace import Trace
from mdsample.scoring.decide import Decisions, decide
from mdsample.scoring.methods import ChainRule, MarginalProduct, MonteCarloBound
from mdsample.scoring.score import Scores, score

if TYPE_CHECKING:
    from mdsample import exact

__all__ = [  # noqa: RUF022, what most people need comes first
    # from a prompt to text
    "load",
    "sample",
    "stream",
    "watch",
    "Row",
    "Samples",
    "Step",
    # the long way
    "Template",
    "Canvas",
    "Policy",
    "parse",
    "Sampler",
    "Engine",
    "Result",
    "Trace",
    # scores, chats, what a model is, exact laws
    "score",
    "Scores",
    "decide",
    "Decisions",
    "chat",
    "inspect",
    "Facts",
    "exact",
    # errors
    "MdsampleError",
    "ModelError",
    "PolicyError",
    "ScoreError",
    "SpecError",
    "TemplateError",
    "TraceError",
    # policies by name
    "ar_med",
    "dparallel",
    "dream",
    "dream_entropy",
    "dus",
    "eb",
    "fast_dllm",
    "fast_dllm_factor",
    "fast_dllm_pp",
    "klass",
    "llada",
    "med",
    "one_by_one",
    "p2",
    "remdm",
    "top_k_margin",
    "top_k_probability",
    # parts: windows
    "Window",
    "Blocks",
    "LedBlocks",
    "RowBlocks",
    "Dilated",
    "Whole",
    # parts: orders
    "Order",
    "Confidence",
    "Entropy",
    "Fixed",
    "LeftToRight",
    "Lookahead",
    "Margin",
    "PositionBiased",
    "Random",
    "RightToLeft",
    # parts: selections
    "Selection",
    "AboveConfidence",
    "BelowEntropy",
    "CumulativeConfidence",
    "EntropyBound",
    "ErrorBudget",
    "Factor",
    "Frechet",
    "Hierarchy",
    "LinearTime",
    "P2Reveal",
    "RandomSelection",
    "RemdmReveal",
    "Stable",
    "DreamSteps",
    "Steps",
    "Top",
    "TvBudget",
    # parts: draws, stops, constraints, revisions, guides
    "Draw",
    "Greedy",
    "Temperature",
    "Stop",
    "Budget",
    "Converged",
    "EarlyExit",
    "Ended",
    "Until",
    "Constraint",
    "Allow",
    "Ban",
    "Characters",
    "Choices",
    "Regex",
    "Integer",
    "Number",
    "Date",
    "Language",
    "Revise",
    "BelowConfidence",
    "Edit",
    "Holding",
    "Never",
    "P2Remask",
    "RandomRevise",
    "RemdmRemask",
    "Renoise",
    "Guide",
    "Annealing",
    "Cfg",
    "Cooling",
    "Credit",
    "NoGuide",
    "Repetition",
    # for parts of your own, and for stepping by hand
    "Part",
    "Batch",
    "Evidence",
    "View",
    "Ranked",
    "Marginals",
    "BeforePass",
    "AfterPass",
    "State",
    "Event",
    "Commit",
    "Outcome",
    "ChainRule",
    "MarginalProduct",
    "MonteCarloBound",
    "__version__",
]


def __getattr__(name: str) -> object:
    """`exact` is imported once it is asked for: most programs never do, and it takes a tenth of the time of all."""
    if name == "exact":
        return import_module("mdsample.exact")
    raise AttributeError(f"module 'mdsample' has no attribute {name!r}")
