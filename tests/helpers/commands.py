"""Commands as a person gives them, and what becomes of wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from mdsample_cli.main import main


def is_refused(arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Asserts that a command ends with 2 and tells in a sentence what is wrong."""
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split()) and "Traceback" not in error
