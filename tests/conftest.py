"""Hypothesis profiles: `tests` (default) and `fast` (10 examples; `pytest --hypothesis-profile fast`)."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "tests", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("fast", settings.get_profile("tests"), max_examples=10)
settings.load_profile("tests")
