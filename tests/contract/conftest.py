"""What a test of the contract asks for by name."""

from __future__ import annotations

import pytest

from backends import BACKENDS, Backend


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend that is installed, one after the other."""
    return request.param
