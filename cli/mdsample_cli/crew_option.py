"""Who does a job: this process, a process for each of several devices, or actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import attrs
import typer
from typer import Option

from mdsample_cli.errors import UsageError, told
from mdsample_cli.groups import OptionGroup
from mdsample_cli.options import ModelOptions

if TYPE_CHECKING:
    from mdsample.jobs.crew import Crew
    from mdsample.models.denoiser import Denoiser


@attrs.frozen(kw_only=True)
class CrewOptions(OptionGroup):
    """Several devices of this machine."""

    panel: ClassVar = "Several devices"

    devices: Annotated[
        str | None,
        Option(metavar="NAME,NAME", help="A process and a model on each, as in cuda:0,cuda:1; results stay the same."),
    ] = None

    @property
    def wanted(self) -> bool:
        """Whether others do the job."""
        return self.devices is not None

    def check(self, model: ModelOptions, **alone: object) -> None:
        """`UsageError` for what one process alone can do; `alone`: such options, by their names."""
        if not self.wanted:
            return
        if self.devices is not None and model.device is not None:
            raise UsageError("--device is one, and --devices are several; give one of the two options")
        for name, value in alone.items():
            if value:
                raise UsageError(f"--{name.replace('_', '-')} follows one process; leave it out, or --devices")

    def check_output(self, output: object) -> None:
        """`UsageError` for records without a file to write them to."""
        if self.wanted and output is None:
            raise UsageError("several devices finish rows in no order, so they go into a file: give --output FILE")

    @contextmanager
    def crew(self, model: ModelOptions) -> Generator[Crew | None]:
        """The crew, if one is asked for."""
        if self.devices is None:
            yield None
            return
        names = [name.strip() for name in self.devices.split(",")]
        if not all(names):
            raise UsageError(f"--devices takes names with commas between, as in cuda:0,cuda:1; got {self.devices!r}")
        from mdsample.jobs.devices import devices

        with devices(partial(load_on, model), names, lambda text: typer.echo(told(text), err=True)) as crew:
            yield crew


def load_on(model: ModelOptions, device: str) -> Denoiser:
    """The model on a device; it is called where the device is."""
    return attrs.evolve(model, device=device).load()
