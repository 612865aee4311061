from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Here, serving

from mdsample.backend.load import load
from mdsample.models.denoiser import Denoiser


@pytest.fixture(scope="session")
def tiny_gsm() -> Denoiser:
    return load("tiny-gsm")


@pytest.fixture(scope="module")
def here(tiny_gsm: Denoiser) -> Iterator[Here]:
    with serving(tiny_gsm) as running:
        yield running
