"""What made a record: versions."""

from __future__ import annotations

import numpy as np

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """What makes a record: the versions of mdsample and NumPy."""
    return {"mdsample": __version__, "numpy": np.__version__}
