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
        typer.Argument(metavar="[TARGET]", help="A model folder, run or hub id; the newest model by default."),
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
        typer.Option("--type", metavar="NAME", help="Weights of a GGUF file: f16 (default), bf16, f32 or q8_0."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="Where to write; runs/NAME/export/KIND or FOLDER-KIND by default."),
    ] = None,
    full_vocabulary: Annotated[
        bool,
        typer.Option(
            "--full-vocabulary", help="Put a model with `tokenizer.keep` back under all of Qwen3's 151,669 ids."
        ),
    ] = False,
) -> None:
    """Write a model that loads without buddygpt. It is loaded again and compared."""
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
