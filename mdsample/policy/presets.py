"""Published samplers as sums of parts. A preset is only a name: what is printed and recorded are the parts.

The window is left free where the paper uses the default (`blocks(32)`), so that it can be chosen: `med+blocks(64)`.
"""

from __future__ import annotations

from collections.abc import Callable

from mdsample.policy.base import Policy
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import Annealing, Cooling
from mdsample.policy.holding import Edit, Renoise
from mdsample.policy.order import Confidence, Entropy, LeftToRight, Margin, Random
from mdsample.policy.revise import P2Remask, RemdmRemask
from mdsample.policy.selection import (
    AboveConfidence,
    BelowEntropy,
    DreamSteps,
    EntropyBound,
    Factor,
    Frechet,
    LinearTime,
    P2Reveal,
    RemdmReveal,
    Stable,
    Steps,
    Top,
)
from mdsample.policy.stop import Converged, Ended
from mdsample.policy.window import Blocks, Dilated, LedBlocks, RowBlocks, Whole


def llada(steps: int | None = 128) -> Policy:
    """LLaDA's low-confidence remasking: highest confidence first, an even split over `steps` (arXiv 2502.09992).

    None: as many steps as tokens, as LLaDA is evaluated and demonstrated (ML-GSAI/LLaDA EVAL.md, generate.py).
    """
    return Confidence() + (Top(1) if steps is None else Steps(steps))


def llada_moe(probability: float = 0.8) -> Policy:
    """LLaDA-MoE as dInfer's README runs it: blocks of 64 from the row's beginning, none after an end token.

    Its smoothing of embeddings and its vicinity cache are left out (inclusionAI/dInfer fce4e32).
    """
    return RowBlocks(64) + Confidence() + AboveConfidence(probability) + Ended(when="reached")


def llada2(probability: float = 0.95, *, at_least: int = 1) -> Policy:
    """LLaDA2.0's `generate`: all above `probability`, but `at_least` a step, until an end token stands (2512.15745).

    Its n steps for a block of 32 mean 32/n `at_least`. The model's own blocks.
    """
    return Confidence() + AboveConfidence(probability, at_least=at_least) + Ended(when="reached")


def llada21(probability: float = 0.5, *, edit: float = 0.0, after: int = 16) -> Policy:
    """LLaDA2.1's joint threshold: all above `probability`, while written tokens are edited above `edit` (2602.08676).

    Up to `after` more passes once a block has no blank. Defaults are those of SGLang's `JointThreshold`.
    """
    return Confidence() + AboveConfidence(probability) + Edit(edit, after=after) + Ended(when="reached")


def llada21_speed() -> Policy:
    """LLaDA2.1's speed mode: `llada21` at 0.5, editing above 0 (arXiv 2602.08676)."""
    return llada21(0.5, edit=0.0)


def llada21_quality() -> Policy:
    """LLaDA2.1's quality mode: `llada21` at 0.7, editing above 0.5 (arXiv 2602.08676)."""
    return llada21(0.7, edit=0.5)


def diffusion_gemma(bound: float = 0.1, *, passes: int = 48, size: int = 256) -> Policy:
    """DiffusionGemma's `generate`: canvases of `size`, drawn anew in each of up to `passes` passes (transformers 5.23).

    Kept is what the entropy bound accepts, at temperatures from 0.8 down to 0.4; a canvas is done when its most
    probable text stands still below 0.005 nats a token. For models whose noise is uniform.
    """
    annealed = Temperature(1.0) + Annealing(0.8, end=0.4, steps=passes)
    settled = Renoise(passes) + Converged(0.005) + Ended(when="reached")
    return Blocks(size) + Entropy() + EntropyBound(bound) + annealed + settled


def sdar(probability: float = 0.85, *, at_least: int = 1) -> Policy:
    """SDAR's `low_confidence_dynamic`: all above `probability`, but `at_least` a step, drawn (arXiv 2510.06303).

    Its n denoising steps mean block/n `at_least`. SDAR compares the probability of the token that it drew, which
    would make the order peek; here it is the most probable one's.
    """
    return Confidence() + AboveConfidence(probability, at_least=at_least) + Temperature(1.0) + Ended(when="reached")


def fast_dllm_v2(probability: float = 0.9, *, size: int = 8) -> Policy:
    """Fast-dLLM v2: parts of `size` of the model's blocks, all above `probability`, the best at least (2509.26328).

    A block's first token is read in the block before and goes by itself. 0.9 as its evaluation and chat run it; 1, the
    default of its `generate`, is above every probability: one token a step.
    """
    chosen = Top(1) if probability == 1 else AboveConfidence(probability)
    return LedBlocks(size) + Confidence() + chosen + Ended(when="reached")


def nemotron(probability: float = 0.9) -> Policy:
    """Nemotron-Labs-Diffusion's `generate`: a block's next token by itself, then all above `probability` in the block.

    At least the best; 0.9 and blocks of 32 as its model card and chat call it (NVlabs/Nemotron-Labs-Diffusion).
    """
    return LedBlocks(32) + Confidence() + AboveConfidence(probability) + Ended(when="reached")


def stable_diffcoder() -> Policy:
    """Stable-DiffCoder's `generate`: highest confidence, one token a step (ByteDance-Seed/Stable-DiffCoder README)."""
    return Confidence() + Top(1) + Ended(when="reached")


def rnd1(steps: int = 256) -> Policy:
    """RND1: lowest entropies, an even split over `steps`, at temperature 0.1 (RadicalNumerics/RND1)."""
    return Whole() + Entropy() + Steps(steps, shares="spread") + Temperature(1.0) + Cooling(0.1)


def med(entropy: float = 0.2, *, k: int | None = None) -> Policy:
    """Multi-token entropy decoding: every position below `entropy` nats, lowest first (arXiv 2510.19990)."""
    return Entropy() + BelowEntropy(entropy, k=k)


def ar_med(entropy: float = 0.2, *, k: int | None = None) -> Policy:
    """MED from left to right: the leading run of positions below `entropy` nats (arXiv 2510.19990)."""
    return Whole() + LeftToRight() + BelowEntropy(entropy, k=k)


def eb(bound: float = 0.1, *, k: int | None = None) -> Policy:
    """The EB-Sampler: lowest entropies while ΣH − max H <= `bound` nats (arXiv 2505.24857)."""
    return Entropy() + EntropyBound(bound, k=k)


def fast_dllm(probability: float = 0.9) -> Policy:
    """Fast-dLLM's threshold: every position with top probability of at least `probability` (arXiv 2505.22618)."""
    return Confidence() + AboveConfidence(probability)


def fast_dllm_factor(factor: float = 0.75) -> Policy:
    """Fast-dLLM's factor rule: highest confidences while (n + 1)(1 − c_n) <= `factor` (arXiv 2505.22618).

    As its code has it, see `factor`; default as in Fast-dLLM++ (2606.02955), where it is the baseline.
    """
    return Confidence() + Factor(factor, rule="published")


def fast_dllm_pp(margin: float = 0.25) -> Policy:
    """Fast-dLLM++: highest confidences while Fréchet's bound on them stays ahead by `margin` (arXiv 2606.02955)."""
    return Confidence() + Frechet(margin)


def dparallel(entropy: float = 0.5) -> Policy:
    """dParallel's decoding, for models that it distilled: every position below `entropy` nats (arXiv 2509.26488)."""
    return Entropy() + BelowEntropy(entropy)


def klass(probability: float = 0.9, *, shift: float = 0.01, looks: int = 2, size: int = 64) -> Policy:
    """KLASS: all confident positions whose marginals stand still, in blocks of `size`; else one (arXiv 2511.05664).

    Published for LLaDA: 0.6 and a shift of 0.015 nats on GSM8K, 0.6 and 0.01 on MATH, 0.9 and 0.01 on HumanEval.
    """
    return Blocks(size) + Confidence() + Stable(probability, shift=shift, looks=looks)


def dream(steps: int = 512) -> Policy:
    """Dream's `origin`: random positions, a binomial number of them on a linear time grid (arXiv 2508.15487)."""
    return Whole() + Random() + LinearTime(steps)


def dream_entropy(steps: int = 512) -> Policy:
    """Dream's `entropy`, as its README runs it: lowest entropies, measured after temperature and top-p (2508.15487)."""
    return _cooled_dream(steps, 0.2)


def dream_coder(steps: int = 768) -> Policy:
    """Dream-Coder's README: `dream-entropy` at temperature 0.1 (DreamLM/Dream-Coder)."""
    return _cooled_dream(steps, 0.1)


def diffucoder(steps: int = 256) -> Policy:
    """DiffuCoder-Instruct's README: `dream-entropy` at temperature 0.4; its base model takes 0.2 (2506.20639)."""
    return _cooled_dream(steps, 0.4)


def _cooled_dream(steps: int, t: float) -> Policy:
    return Whole() + Entropy() + DreamSteps(steps) + Temperature(1.0) + Cooling(t, top_p=0.95)


def dus(size: int = 32) -> Policy:
    """Dilated unmasking: a block of `size` in ⌈log2 size⌉ rounds of places far apart (arXiv 2506.19037)."""
    return Dilated(size) + Steps(1)


def top_k_margin(steps: int = 50, *, noise: float = 0.5) -> Policy:
    """Top-K probability margin: largest margins, with Gumbel noise, an even split over `steps` (arXiv 2502.06768).

    Defaults are those of its puzzles (appendix D.2).
    """
    return Whole() + Margin(noise=noise) + Steps(steps) + Temperature(1.0)


def top_k_probability(steps: int = 50, *, noise: float = 0.5) -> Policy:
    """Top-K probability, the rival of `top-k-margin`: highest top probabilities, with Gumbel noise (arXiv 2502.06768).

    Defaults are those of its puzzles (appendix D.2).
    """
    return Whole() + Confidence(noise=noise) + Steps(steps) + Temperature(1.0)


def remdm(kind: str = "cap", *, eta: float | None = None, steps: int = 1024) -> Policy:
    """ReMDM: ancestral sampling that masks tokens again (arXiv 2503.00307); `kind` cap, rescale, conf or loop."""
    again = RemdmRemask(kind, eta=eta, steps=steps)
    return Whole() + Random() + RemdmReveal(kind, eta=eta, steps=steps) + Temperature(1.0) + again


def p2(eta: float = 1.0, *, steps: int = 512, scores: str = "own") -> Policy:
    """P2, self-planning: the best of what stands and what could, a share that grows with time (arXiv 2502.03540).

    `eta` above 1 masks more of what stands, 0 nothing. A run takes nearly `steps` passes, however few blanks it has.
    Defaults as published for LLaDA, at temperature 0. `scores`: own, the paper's rule, or best, that of its code.
    """
    halves = P2Reveal(eta, steps=steps, scores=scores) + P2Remask(eta, steps=steps, scores=scores)
    return Whole() + Confidence() + halves


def one_by_one() -> Policy:
    """Ancestral sampling, one token a step in random order: exactly the model's law (arXiv 2502.06768).

    Also the first-hitting sampler (arXiv 2409.02908): its times matter only to a model that is told the time.
    """
    return Whole() + Random() + Top(1) + Temperature(1.0)


#: the names that policy text may use
PRESETS: dict[str, Callable[..., Policy]] = {
    "llada": llada,
    "llada-moe": llada_moe,
    "llada2": llada2,
    "llada21": llada21,
    "llada21-speed": llada21_speed,
    "llada21-quality": llada21_quality,
    "diffusion-gemma": diffusion_gemma,
    "sdar": sdar,
    "fast-dllm-v2": fast_dllm_v2,
    "nemotron": nemotron,
    "stable-diffcoder": stable_diffcoder,
    "rnd1": rnd1,
    "med": med,
    "ar-med": ar_med,
    "eb": eb,
    "fast-dllm": fast_dllm,
    "fast-dllm-factor": fast_dllm_factor,
    "fast-dllm-pp": fast_dllm_pp,
    "dparallel": dparallel,
    "klass": klass,
    "dream": dream,
    "dream-entropy": dream_entropy,
    "dream-coder": dream_coder,
    "diffucoder": diffucoder,
    "dus": dus,
    "top-k-margin": top_k_margin,
    "top-k-probability": top_k_probability,
    "remdm": remdm,
    "p2": p2,
    "one-by-one": one_by_one,
}
