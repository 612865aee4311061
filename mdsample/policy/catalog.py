"""The menu: every part by its name in policy text. A new part is added here, or it does not exist."""

from __future__ import annotations

from mdsample.policy import budget, constraint, draw, guide, language, order, revise, selection, stop, window
from mdsample.policy.base import Part

PARTS: dict[str, type[Part]] = {
    part.name: part
    for part in (
        window.Whole,
        window.Blocks,
        window.RowBlocks,
        window.LedBlocks,
        window.Dilated,
        order.Confidence,
        order.Margin,
        order.Entropy,
        order.PositionBiased,
        order.Lookahead,
        order.LeftToRight,
        order.RightToLeft,
        order.Random,
        order.Fixed,
        selection.Top,
        selection.Steps,
        selection.DreamSteps,
        selection.BelowEntropy,
        selection.EntropyBound,
        budget.ErrorBudget,
        budget.TvBudget,
        selection.AboveConfidence,
        selection.CumulativeConfidence,
        selection.Factor,
        selection.Frechet,
        selection.LinearTime,
        selection.RemdmReveal,
        selection.P2Reveal,
        selection.Stable,
        selection.Hierarchy,
        draw.Greedy,
        draw.Temperature,
        stop.EarlyExit,
        stop.Budget,
        stop.Ended,
        constraint.Ban,
        constraint.Allow,
        constraint.Characters,
        language.Choices,
        language.Regex,
        language.Integer,
        language.Number,
        language.Date,
        revise.Never,
        revise.RemdmRemask,
        revise.BelowConfidence,
        revise.P2Remask,
        guide.NoGuide,
        guide.Cfg,
        guide.Cooling,
        guide.Credit,
    )
}
