"""What every command does with its line and its help: an option of one value is given once; paragraphs flow."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from mdsample_cli.errors import UsageError


class Command(TyperCommand):
    """A command that refuses an option given twice, unless it may be repeated."""

    def __init__(self, *arguments: Any, help: str | None = None, **settings: Any) -> None:
        """As typer calls it; line breaks of a docstring are not those of its help."""
        flowing = "\n\n".join(" ".join(text.split()) for text in (help or "").split("\n\n"))
        super().__init__(*arguments, help=flowing, **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the line; `UsageError` for an option of one value that is there twice."""
        if not ctx.resilient_parsing:  # not while a shell completes the line
            _, _, order = self.make_parser(ctx).parse_args(args=[*args])
            for option in order:
                if isinstance(option, TyperOption) and not option.multiple and order.count(option) > 1:
                    name = "/".join([max(option.opts, key=len), *option.secondary_opts])
                    raise UsageError(f"{name} is given {order.count(option)} times, but takes one value; keep one")
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        """`--help`, shown without a value."""
        return _flag(super().get_help_option(ctx))


class Group(TyperGroup):
    """The whole command; what installs completion is named in its text, not among its options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options."""
        params = super().get_params(ctx)
        for option in params:
            if isinstance(option, TyperOption) and option.opts[0].endswith("-completion"):
                option.hidden = True
        return params

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        """`--help`, shown without a value."""
        return _flag(super().get_help_option(ctx))


def _flag(option: TyperOption | None) -> TyperOption | None:
    if option is not None:
        option.metavar = ""
    return option
