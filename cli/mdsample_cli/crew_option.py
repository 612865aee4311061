"""Who does a job: this process, a process for each of several devices, or actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import attrs
from typer import Option

from mdsample_cli.errors import UsageError, note
from mdsample_cli.groups import OptionGroup
from mdsample_cli.options import ModelOptions

if TYPE_CHECKING:
    from mdsample.evaluation.study_file import StudyModel
    from mdsample.jobs.crew import Crew
    from mdsample.models.denoiser import Denoiser


@attrs.frozen(kw_only=True)
class CrewOptions(OptionGroup):
    """Several devices of this machine, or a cluster."""

    panel: ClassVar = "Several devices"

    devices: Annotated[
        str | None,
        Option(metavar="NAME,NAME", help="A process and a model on each, as in cuda:0,cuda:1; results stay the same."),
    ] = None

    ray: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="Actors of a Ray cluster: auto (the one here), local (a new one) or HOST:PORT."),
    ] = None
    actors: Annotated[int | None, Option(min=1, metavar="N", help="How many. Default: as many as fit.")] = None
    actor_gpus: Annotated[
        float | None, Option(min=0, metavar="N", help="GPUs of an actor, as 0.5. Default: 1 if the cluster has some.")
    ] = None
    actor_cpus: Annotated[float | None, Option(min=0.01, metavar="N", help="CPUs of an actor. Default: 1.")] = None

    @property
    def wanted(self) -> bool:
        """Whether others do the job."""
        return self.devices is not None or self.ray is not None

    def check(self, model: ModelOptions | StudyModel, **alone: object) -> None:
        """`UsageError` for what one process alone can do; `alone`: such options, by their names."""
        given = {"actors": self.actors, "actor-gpus": self.actor_gpus, "actor-cpus": self.actor_cpus}
        if self.ray is None and (needless := [name for name, value in given.items() if value is not None]):
            raise UsageError(f"--{needless[0]} is of a cluster; add --ray ADDRESS, or leave it out")
        if not self.wanted:
            return
        if self.devices is not None and self.ray is not None:
            raise UsageError("--devices are of this machine, and --ray is a cluster; give one of them")
        if self.devices is not None and model.device is not None:
            raise UsageError("--device is one, and --devices are several; give one of the two options")
        if not all(self._names):
            raise UsageError(f"--devices takes names with commas between, as in cuda:0,cuda:1; got {self.devices!r}")
        for name, value in alone.items():
            if value:
                raise UsageError(f"--{name.replace('_', '-')} follows one process; leave it out, or {self._name}")

    @property
    def _names(self) -> list[str]:
        """The devices."""
        return [] if self.devices is None else [name.strip() for name in self.devices.split(",")]

    @property
    def _name(self) -> str:
        return "--devices" if self.ray is None else "--ray"

    def check_output(self, output: object) -> None:
        """`UsageError` for records without a file to write them to."""
        if self.wanted and output is None:
            raise UsageError(f"{self._name} finishes rows in no order, so they go into a file: give --output FILE")

    @contextmanager
    def joined(self) -> Generator[None]:
        """The cluster, joined once for all models that are opened meanwhile; nothing without one."""
        if self.ray is None:
            yield
            return
        with ray_module().cluster(self.ray):
            yield

    @contextmanager
    def opened(self, model: ModelOptions | StudyModel) -> Generator[tuple[Denoiser, Crew | None]]:
        """The model in this process, or what is known of it and the crew that has it."""
        with self.crew(model) as crew:
            yield (model.load() if crew is None else crew.model), crew

    @contextmanager
    def crew(self, model: ModelOptions | StudyModel) -> Generator[Crew | None]:
        """The crew, if one is asked for."""
        if self.ray is not None:
            given = self.actors, self.actor_gpus, self.actor_cpus
            with ray_module().actors(self.ray, partial(load_here, model), *given, note) as crew:
                yield crew
            return
        if self.devices is None:
            yield None
            return
        from mdsample.jobs.devices import devices

        with devices(partial(load_on, model), self._names, note) as crew:
            yield crew


def ray_module() -> Any:
    """The adapter to Ray, which is imported for nothing else; `UsageError` says what to install."""
    try:
        return import_module("mdsample_integrations.ray")
    except ImportError as fault:
        raise UsageError(f"--ray takes Ray ({fault}): pip install 'mdsample[ray]'") from None


def load_here(model: ModelOptions | StudyModel) -> Denoiser:
    """The model, on the device that an actor has."""
    return model.load()


def load_on(model: ModelOptions | StudyModel, device: str) -> Denoiser:
    """The model on a device; it is called where the device is."""
    return attrs.evolve(model, device=device).load()
