"""Hypothesis profiles: `tests` (default) and `fast` (10 examples; `pytest --hypothesis-profile fast`)."""

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
        if item.path.relative_to(TESTS).parts[0] in ("torch", "mlx"):
            item.add_marker(pytest.mark.backend)
