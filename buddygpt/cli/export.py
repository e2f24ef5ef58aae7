"""`buddy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer


def export(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="A model folder, run or hub id; the newest model where left out."),
    ] = None,
    to: Annotated[
        str,
        typer.Option("--to", metavar="KIND", help="hf: a folder for transformers; gguf: a file for llama.cpp; ollama."),
    ] = "hf",
    arch: Annotated[
        str, typer.Option(metavar="NAME", help="auto, or qwen2, qwen3, deepseek_v3: the architecture to write.")
    ] = "auto",
    kind: Annotated[
        str | None,
        typer.Option("--type", metavar="NAME", help="A GGUF file's weights: f16 (where left out), bf16, f32 or q8_0."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="Where to; runs/NAME/export/KIND or FOLDER-KIND where left out."),
    ] = None,
    full_vocabulary: Annotated[
        bool,
        typer.Option("--full-vocabulary", help="A model of `tokenizer.keep` under Qwen3's ids, all 151,669 of them."),
    ] = False,
) -> None:
    """Write a model that loads without buddygpt, and see that it does."""
    from buddygpt.stages import export as stage

    with Renderer() as renderer:
        stage.run(
            target,
            options.RUNS,
            to=to,
            arch=arch,
            kind=kind,
            output=output,
            full_vocabulary=full_vocabulary,
            emit=renderer.emit,
        )
