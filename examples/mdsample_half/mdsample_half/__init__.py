"""A part, a preset and a backend for mdsample, each registered as an entry point in `pyproject.toml`."""
