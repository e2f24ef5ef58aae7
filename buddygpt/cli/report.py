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
        typer.Option("--out", metavar="FILE", help="The page of several runs; runs/report.html where left out."),
    ] = None,
) -> None:
    """Write a run's reports anew from its files, while it trains too; lay several runs side by side on one page."""
    with Renderer() as renderer:
        from buddygpt.stages import report as stage

        stage.run(targets, options.RUNS, out, renderer.emit)
