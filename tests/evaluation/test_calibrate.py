"""The cheapest setting within a loss: the order of tries, the limits, and how often a wrong one would be chosen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from mdsample.backend.load import load
from mdsample.errors import BenchError, PolicyError, SpecError
from mdsample.evaluation.answers import Answered
from mdsample.evaluation.bench import Runs
from mdsample.evaluation.calibrate import Loss, Trial, calibrate, exact_limit, settings
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.catalog import PARTS
from mdsample.policy.parsing import parse
from mdsample.policy.settings import domains
from mdsample.tasks.catalog import Problem, Task, in_answer

PROBLEMS = tuple(Problem(i, {"prompt": "the cat " * (i % 3)}, "x") for i in range(20))
TASK = Task("cats", "", "Q {prompt} R{reasoning:9} A{answer:2}", lambda: PROBLEMS, in_answer)
REFERENCE = parse("entropy+top(1)")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load(write_checkpoint(tmp_path_factory.mktemp("model") / "tiny"), "reference")


@pytest.fixture
def runs(model: Denoiser) -> Runs:
    return Runs.of(model, TASK, None, None, 0, 8, None, None)


def tried(runs: Runs, text: str, loss: Loss, values: list[float] | None = None) -> list[Trial]:
    return list(calibrate(runs, REFERENCE, settings(text, values), loss))


def test_it_stops_at_the_first_that_does_not_keep_the_loss(runs: Runs) -> None:
    found = tried(runs, "entropy+error-budget(?)", Loss("error-bound", 1.0))
    assert [one.kept for one in found] == [True] * (len(found) - 1) + [False]
    assert 2 <= len(found) < len(settings("entropy+error-budget(?)"))
    assert all(a.nfe.value >= b.nfe.value for a, b in pairwise(found))
    assert all(one.loss <= one.limit for one in found)
    # the bound of error-budget is a promise, so what is asked for cannot be exceeded
    assert all(one.loss <= one.value for one in found)
    assert found[0].policy == parse("entropy+error-budget(0.1)")


def test_a_total_variation_is_kept(runs: Runs) -> None:
    one, two = tried(runs, "entropy+top(?)", Loss("total-variation", 0.5), [1, 2, 3])
    assert (one.loss, one.limit, one.kept) == (0.0, 0.0, True)
    assert 0.5 < two.loss <= two.limit and not two.kept
    assert all(trial.loss <= trial.value for trial in tried(runs, "tv-budget(?)", Loss("total-variation", 0.9)))


def test_nothing_lost_is_still_not_certain(runs: Runs) -> None:
    # one by one is the reference itself, but 20 rows cannot show that a loss is below 5 %
    (one,) = tried(runs, "entropy+top(?)", Loss("agreement", 0.05), [1])
    assert (one.loss, one.kept) == (0.0, False)
    assert one.limit == pytest.approx(1 - 0.05 ** (1 / 20))
    (one,) = tried(runs, "entropy+top(?)", Loss("agreement", 0.2), [1])
    assert one.kept
    (one,) = tried(runs, "entropy+top(?)", Loss("accuracy", 0.2), [1])
    assert one.kept and one.limit == pytest.approx(1 - 0.025 ** (1 / 20))
    assert all(not one.kept for one in tried(runs, "entropy+top(?)", Loss("agreement", 0.0, 0.5), [9]))


def test_settings() -> None:
    assert settings("med(?)")[0] == (0.01, parse("med(0.01)"))
    for name, part in PARTS.items():
        known = [domain for domain in domains(part).values() if domain and domain.kind != "choice" and domain.values]
        for domain in known:
            assert tuple(value for value, _ in settings(f"{name}(?)")) == domain.values
    assert [p for _, p in settings("top(?)", [1, 2])] == [parse("top(1)"), parse("top(2)")]
    # the policy that runs has the value that is told, to the last digit
    for value in (0.9999999, 0.1 + 0.2, 1e-7):
        assert settings("above-confidence(?)", [value]) == [(value, parse(f"above-confidence({value!r})"))]
    assert settings("top(?)", [1234567])[0][1] == parse("top(1234567)")
    assert settings("med+early-exit(?)")[0][1] == parse("med+early-exit(0.001)")
    for text, message in (
        ("med", "as in med"),
        ("med(?)+early-exit(?)", "once"),
        ("remasking(?)", "remasking"),
        ("confidence(noise=?)", "no settings are known"),
        ("med(?", r"med\(1"),
    ):
        with pytest.raises((BenchError, SpecError, PolicyError), match=message):
            settings(text)
    with pytest.raises(SpecError):
        settings("top(?)", [0.5])
    with pytest.raises(BenchError, match="no settings to try"):
        settings("med(?)", [])


@given(st.integers(0, 40), st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_exact_limit(events: int, trials: int, confidence: float) -> None:
    events = min(events, trials)
    limit = exact_limit(events, trials, confidence)
    assert events / trials <= limit <= 1
    if events == 0:
        assert limit == pytest.approx(1 - (1 - confidence) ** (1 / trials))
    if events < trials:
        assert exact_limit(events + 1, trials, confidence) > limit
    assert exact_limit(events, trials + 5, confidence) <= limit
    assert exact_limit(0, 5, 1 - 2**-53) <= exact_limit(4, 5, 1 - 2**-53) <= 1


def test_limits_cover() -> None:
    from mdsample.evaluation.calibrate import _loss

    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        base = rng.random(150) < 0.8
        mine = base & (rng.random(150) < 0.95) | (rng.random(150) < 0.01)
        pair = [[answered(i, bool(x)) for i, x in enumerate(some)] for some in (mine, base)]
        _, limit = _loss(Loss("accuracy", 0.0), pair[0], pair[1])
        held += limit >= 0.8 * 0.05 * 0.99 - 0.2 * 0.01
    assert held / 300 >= 0.95


def answered(number: int, solved: bool) -> Answered:
    return Answered(number, str(solved), "True", solved, "", 1, 1, 1, 1, 0.0, 0.0, 0.0)


def test_wrong_policies_are_refused_before_anything_runs(runs: Runs) -> None:
    seen: list[Policy] = []
    with pytest.raises(PolicyError, match="no such slot"):
        calibrate(
            runs,
            REFERENCE,
            settings("med+early-exit(?,slot='x')", [0.1]),
            Loss("agreement", 0.1),
            lambda policy, done: seen.append(policy),
        )
    assert not seen
    for wrong in (("agreement", -0.1, 0.95), ("agreement", 0.1, 0.4), ("agreement", 0.1, 1.0)):
        with pytest.raises(ValueError, match="must be"):
            Loss(*wrong)
