"""Option groups: attrs classes whose fields are options, so that commands share options and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

R = TypeVar("R")


class OptionGroup:
    """A base for frozen attrs classes with keyword-only fields; each field is `Annotated[type, typer.Option(…)]`."""

    #: the heading in `--help`
    panel: ClassVar[str]


class Without:
    """Options that a command lacks, as in `Annotated[ModelOptions, Without("compile")]`; they keep their defaults."""

    def __init__(self, *names: str) -> None:
        """The parameters' names."""
        self.names = names


def grouped(command: Callable[..., R]) -> Callable[..., R]:
    """The command as typer sees it: each parameter that is an `OptionGroup` replaced by the options of the group."""
    flat: list[Parameter] = []
    groups: dict[str, tuple[Callable[..., OptionGroup], list[str]]] = {}
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in signature(command).parameters.items():
        hint = hints[name]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if isinstance(kind, type) and issubclass(kind, OptionGroup):
            left_out = {option for note in notes if isinstance(note, Without) for option in note.names}
            options = [option for option in _options(kind) if option.name not in left_out]
            groups[name] = kind, [option.name for option in options]
            flat += options
        else:
            flat.append(parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def flattened(**values: Any) -> R:
        grouped_values = {
            name: group(**{option: values.pop(option) for option in options})
            for name, (group, options) in groups.items()
        }
        return command(**values, **grouped_values)

    # what typer reads
    flattened.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    flattened.__dict__["__signature__"] = Signature(flat)
    return flattened


def _options(group: type[OptionGroup]) -> Iterator[Parameter]:
    """The group's fields as parameters, under its heading."""
    hints = get_type_hints(group, include_extras=True)
    for name, field in signature(group).parameters.items():
        kind, option = get_args(hints[name])
        option = copy(option)
        option.rich_help_panel = group.panel
        yield field.replace(annotation=Annotated[kind, option])
