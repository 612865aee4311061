"""What made a record: versions."""

from __future__ import annotations

import sys

import numpy as np

__version__ = "0.2.0"

#: frameworks that a backend or training loads; which one it was decides the last bits of a result
_FRAMEWORKS = {"torch": "torch", "transformers": "transformers", "mlx": "mlx.core"}


def versions() -> dict[str, str]:
    """What makes a record: the versions of mdsample, NumPy and each framework that is loaded; none is loaded here."""
    loaded = {name: sys.modules.get(module) for name, module in _FRAMEWORKS.items()}
    texts = {name: str(getattr(module, "__version__", "")) for name, module in loaded.items() if module is not None}
    return {"mdsample": __version__, "numpy": np.__version__, **{name: text for name, text in texts.items() if text}}
