"""`buddy eval`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError, Stopped


def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]...", help="Model folders, runs or hub ids to compare; the newest model by default."
        ),
    ] = None,
    tasks: Annotated[str | None, typer.Option("--tasks", metavar="A,B", help="Benchmarks; --list names them.")] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Show which benchmarks are ready here, and what the others lack.")
    ] = False,
    shots: Annotated[
        int | None,
        typer.Option(min=0, help="Worked examples before each question; the benchmark's own number by default."),
    ] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", metavar="N|auto", help="Rows per batch; auto takes as many as memory allows.")
    ] = "auto",
    device: Annotated[
        str | None, typer.Option(help="E.g. cpu or cuda:1; the accelerator by default, if there is one.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16; by default bf16 on a GPU, fp32 on a CPU.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="N|N%", help="Items of each subject, or a share of them, drawn with a fixed seed."),
    ] = None,
    texts: Annotated[
        bool, typer.Option("--answer-texts", help="Judge answers by their texts instead of their letters.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Where results go; into the model's run by default.")] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Also write every item with its prompt and answer.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="A folder with the benchmarks' files, in place of a hub.")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code-execution", help="Run programs that the model writes, in a sandbox.")
    ] = False,
) -> None:
    """Score models on benchmarks, and say what is above chance."""
    for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")  # before the libraries are imported: how far it is is told by us
    cache = options.RUNS / ".bench"
    with Renderer() as renderer:
        if show:
            from buddygpt.evaluation.listing import list_benchmarks
            from buddygpt.recipe.hub import HubSection

            list_benchmarks(data_dir, HubSection(), cache, renderer.emit)
            return
        names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
        if not names:
            raise BuddyError("--tasks: name benchmarks, such as --tasks cmmlu,ceval; `buddy eval --list` shows them")
        count, share = _read_limit(limit)
        rows = _read_batch(batch_size)
        from buddygpt.stages import eval as stage

        settings = stage.Settings(shots=shots, batch_size=rows, limit=count, share=share, texts=texts)
        chosen = stage.Options(settings, data_dir, device, dtype, output, samples, allow_code=allow_code)
        try:
            stage.run(targets or [], names, options.RUNS, cache, chosen, renderer.emit)
        except KeyboardInterrupt:
            raise Stopped("stopped; the answers so far are kept, the same command goes on with them") from None


def _read_limit(text: str | None) -> tuple[float | None, bool]:
    """A number of items, or a share of them.

    Raises:
        BuddyError: neither, or none at all.
    """
    if text is None:
        return None, False
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    value = float(match[1]) if match else 0.0
    if match and match[2] and 0 < value <= 100:
        return value / 100, True
    if match and not match[2] and value >= 1 and value == int(value):
        return value, False
    raise BuddyError(f"--limit {text}: write a number of items such as 100, or a share such as 10%")


def _read_batch(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise BuddyError(f"--batch-size {text}: write a number of rows, or auto")
