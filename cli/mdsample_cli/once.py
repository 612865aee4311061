"""An option that takes one value is given once: the last of several does not win in silence."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption

from mdsample_cli.errors import UsageError


class OnceEach(TyperCommand):
    """A command that refuses a single option given twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, after the options have been counted."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option, count in Counter(order).items():
            if count > 1 and isinstance(option, TyperOption) and not (option.multiple or option.count):
                raise UsageError(f"{option.opts[0]} is given {count} times and takes one value; leave out all but one")
        return super().parse_args(ctx, args)
