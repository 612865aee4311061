"""Hypothesis profiles: `tests` (default) and `fast` (10 examples; `pytest --hypothesis-profile fast`)."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # one thread a worker, before NumPy and torch are imported: threads of several workers would wait for each other
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent

settings.register_profile(
    "tests", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("fast", settings.get_profile("tests"), max_examples=10)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is in the folders of the frameworks needs one of them."""
    for item in items:
        if any(item.path.is_relative_to(TESTS / name) for name in ("torch", "mlx")):
            item.add_marker(pytest.mark.backend)
