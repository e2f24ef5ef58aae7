"""The table of commands, and what happens when one fails."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import buddygpt
from buddygpt.cli import chat, data, export, push, recipes, train
from buddygpt.cli.eval import evaluate
from buddygpt.cli.plan import plan
from buddygpt.cli.report import report
from buddygpt.recipe.errors import BuddyError, Stopped, is_out_of_memory
from buddygpt.training import launch


class InOrder(typer.core.TyperGroup):
    """Commands in the order of a model's life."""

    def list_commands(self, ctx: object) -> list[str]:
        """Names as they were added, `recipes` and `data` first."""
        first = ("recipes", "data")
        return [*first, *(name for name in self.commands if name not in first)]

    def invoke(self, ctx: typer.Context) -> object:
        """Run a command; Ctrl-C is reported, where typer would exit without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped from None


app = typer.Typer(
    name="buddy",
    cls=InOrder,
    help="Train small language models from scratch, Chinese first. 从零训练小语言模型，中文优先。",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.command("plan")(plan)
app.command("pretrain")(train.pretrain)
app.command("sft")(train.sft)
app.command("dpo")(train.dpo)
app.command("report")(report)
app.command("eval")(evaluate)
app.command("chat")(chat.chat)
app.command("export")(export.export)
app.command("push")(push.push)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"buddygpt {buddygpt.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before a command; `main` reads --debug."""


def main() -> None:
    """Run the command line: exit code 2 for what the user can mend, 1 for what we must, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a GBK or C console shows '?', it does not crash
    # Before any library is imported: they read these once.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        app()
    except BuddyError as error:
        _fail(error, error.lines, error.exit_code)
    except KeyboardInterrupt:  # while the command line itself is still being read
        _fail(None, Stopped().lines, Stopped.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if is_out_of_memory(error):
            less = "a smaller batch or model takes less; `buddy plan` tells how much"
            _fail(error, (f"memory does not suffice ({line}); {less}",), 2)
        _fail(error, (f"unexpected: {line}; `buddy --debug ...` shows where",), 1)


def _fail(error: BaseException | None, lines: tuple[str, ...], code: int) -> None:
    from buddygpt.publishing.secrets import redact  # whatever a hub or a library says may hold a token

    if error is not None and "--debug" in sys.argv[1:]:
        import traceback

        typer.echo(redact("".join(traceback.format_exception(error))), err=True, nl=False)
    if lost := error is not None and launch.is_peer_lost(error):
        lines, code = launch.loss_lines(error), launch.LOST
    launch.hold_back(lost)
    for line in lines:
        typer.echo(redact(f"buddy: {line}"), err=True)
    launch.leave(code)
