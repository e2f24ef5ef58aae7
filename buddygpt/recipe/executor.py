"""The `data.executor` section: on which machines text is prepared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from buddygpt.recipe.base import Positive, PositiveNumber, Section


class LocalExecutor(Section):
    """Processes on this machine."""

    kind: Literal["local"]
    """This machine."""


class Distributed(Section):
    """What executors of many machines have in common: all see the run folder under the same path."""

    cpus_per_task: Positive = 1
    """Processors that a task has."""
    memory_per_cpu: PositiveNumber = 4
    """Gigabytes for each of them."""


class SlurmExecutor(Distributed):
    """Job arrays of Slurm, submitted by datatrove with `sbatch`."""

    kind: Literal["slurm"]
    """A Slurm cluster."""
    partition: str
    """Where jobs run."""
    time: str = "12:00:00"
    """Limit of one task, hours:minutes:seconds."""
    setup: str | None = None
    """Shell line that readies a node, e.g. `source /home/me/buddygpt/.venv/bin/activate`."""
    options: dict[str, str] = {}
    """More options of sbatch, e.g. `{account: mine}`."""


class RayExecutor(Distributed):
    """Tasks of a Ray cluster, through datatrove."""

    kind: Literal["ray"]
    """A Ray cluster, or one that is started on this machine."""
    address: str | None = None
    """Of the cluster, as `ray.init` takes it; a cluster on this machine is started where left out."""


AnyExecutor = Annotated[LocalExecutor | SlurmExecutor | RayExecutor, Field(discriminator="kind")]
