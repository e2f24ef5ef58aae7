"""`buddy chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from buddygpt.conversation.talk import Conversation

HELP = "/reset forgets the talk, /system TEXT sets the system message, /quit or Ctrl-D ends"


def chat(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="A model folder, run or hub id; the newest model where left out."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Answer this one text and end.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message of a chat model.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one reply.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token always.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the probability that is drawn from.")] = 0.95,
    seed: Annotated[int | None, typer.Option(help="Makes replies repeatable.")] = None,
) -> None:
    """Talk to a model: a base model goes on with the text, a chat model converses."""
    from buddygpt.model.sampling import Sampling
    from buddygpt.stages.chat import open_conversation

    renderer = Renderer(stderr=True)
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    talk = open_conversation(target, options.RUNS, sampling, renderer.emit)
    if system and not talk.converses:
        raise BuddyError("--system: this is a base model, it has no system message")
    talk.set_system(system or "")
    if prompt is not None:
        _say(talk, prompt)
        return
    live = sys.stdin.isatty()
    if live:
        kind = "converses" if talk.converses else "goes on with your text"
        typer.echo(f"{kind}; {HELP}", err=True)
    for line in _typed() if live else _piped():
        if line in ("/quit", "/exit"):
            break
        if line == "/reset":
            talk.reset()
            typer.echo("the talk is forgotten", err=True)
        elif line == "/system" or line.startswith("/system "):
            if talk.converses:
                talk.set_system(line.removeprefix("/system").strip())
                typer.echo("system message set, the talk begins anew", err=True)
            else:
                typer.echo("a base model has no system message", err=True)
        elif line.startswith("/") and " " not in line and len(line) > 1:
            typer.echo(f"{line}: unknown; {HELP}", err=True)
        elif line:
            try:
                _say(talk, line)
            except KeyboardInterrupt:
                typer.echo()
                if not live:
                    raise
            except BuddyError as error:  # one text too long does not end the talk
                typer.echo(f"buddy: {error}", err=True)


def _say(talk: Conversation, text: str) -> None:
    with closing(talk.say(text)) as pieces:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    typer.echo()


def _typed() -> Iterator[str]:
    """Lines from a terminal, with history and line editing. The prompt belongs to the editor, which knows its width."""
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            typer.echo(err=True)
            return
        except KeyboardInterrupt:
            typer.echo(" (Ctrl-D or /quit ends)", err=True)
        except UnicodeDecodeError:
            typer.echo("that line was neither UTF-8 nor GBK and is left out", err=True)


def _piped() -> Iterator[str]:
    """Lines from a pipe: UTF-8, or GBK where it is not; anything else is refused and the talk goes on."""
    for raw in sys.stdin.buffer:
        for encoding in ("utf-8-sig", "gb18030"):
            try:
                yield raw.decode(encoding).strip()
                break
            except UnicodeDecodeError:
                continue
        else:
            typer.echo("a line was neither UTF-8 nor GBK and is left out", err=True)
