"""The menu: every part by its name in policy text. A new part is added here, or it does not exist."""

from __future__ import annotations

from mdsample.policy.base import Part
from mdsample.policy.constraint import Allow, Ban, Characters, Choices
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Cfg, NoGuide
from mdsample.policy.order import (
    Confidence,
    Entropy,
    Fixed,
    LeftToRight,
    Lookahead,
    Margin,
    PositionBiased,
    Random,
    RightToLeft,
)
from mdsample.policy.revise import BelowConfidence, Never, P2Remask, RemdmRemask
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
    RemdmReveal,
    Stable,
    Steps,
    Top,
)
from mdsample.policy.stop import Budget, EarlyExit, Ended
from mdsample.policy.window import Blocks, Dilated, Whole

PARTS: dict[str, type[Part]] = {
    part.name: part
    for part in (
        Whole,
        Blocks,
        Dilated,
        Confidence,
        Margin,
        Entropy,
        PositionBiased,
        Lookahead,
        LeftToRight,
        RightToLeft,
        Random,
        Fixed,
        Top,
        Steps,
        BelowEntropy,
        EntropyBound,
        ErrorBudget,
        AboveConfidence,
        CumulativeConfidence,
        Factor,
        Frechet,
        LinearTime,
        RemdmReveal,
        P2Reveal,
        Stable,
        Greedy,
        Temperature,
        EarlyExit,
        Budget,
        Ended,
        Ban,
        Allow,
        Characters,
        Choices,
        Never,
        RemdmRemask,
        BelowConfidence,
        P2Remask,
        NoGuide,
        Cfg,
    )
}
