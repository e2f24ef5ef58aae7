"""`buddy report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer


def report(
    targets: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page for several runs; runs/report.html by default."),
    ] = None,
) -> None:
    """Rebuild a run's reports from its files, or compare several runs. A run may still be training."""
    with Renderer() as renderer:
        from buddygpt.stages import report as stage

        stage.run(targets, options.RUNS, out, renderer.emit)
