"""`buddy plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.schema import Chapter
from buddygpt.training import launch

ProbeOption = Annotated[
    bool, typer.Option("--probe", help="Train for about a minute on this device, to measure speed and memory.")
]
PriceOption = Annotated[
    float | None, typer.Option("--per-hour", metavar="PRICE", help="What one device costs per hour, in any currency.")
]


StageOption = Annotated[
    Chapter, typer.Option("--stage", help="Which stage; for sft and dpo only memory and disk can be told beforehand.")
]


def plan(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    stage: StageOption = "pretrain",
    probe: ProbeOption = False,
    per_hour: PriceOption = None,
) -> None:
    """Show what training takes: memory, time, disk, cost. Nothing is written."""
    if per_hour is not None and not 0 < per_hour < float("inf"):
        raise BuddyError(f"--per-hour: {per_hour:g} is no price; write what one device costs an hour, e.g. 12")
    checked, where, cache = options.open_run(recipe, set_, run)
    launch.check_launched(None)
    with Renderer() as renderer:
        from buddygpt.stages import plan as stages_plan

        stages_plan.run(checked, where, cache=cache, chapter=stage, probed=probe, per_hour=per_hour, emit=renderer.emit)
