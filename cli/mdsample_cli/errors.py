"""What ends a command early; `main` prints the message."""

from __future__ import annotations


class UsageError(Exception):
    """The command makes no sense as given; the message says why, and what to do."""


class Interrupted(Exception):
    """The user stopped the command; the message says what is kept."""
