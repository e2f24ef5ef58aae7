"""`buddy chat`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from buddygpt.cli import lines, options, serving
from buddygpt.cli.render import Renderer
from buddygpt.events import Caution, Event
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from buddygpt.cli.speech import Speaker
    from buddygpt.model.sampling import Sampling


def chat(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="A model folder, run or hub id; the newest model by default. Two answer side by side.",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Answer this one text and exit.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message for a chat model.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens in one reply.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Draw from the likeliest tokens that make up this share of the probability."
        ),
    ] = 0.95,
    seed: Annotated[int | None, typer.Option(help="Makes replies repeatable.")] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a page to talk on, for a browser on this machine.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Run an OpenAI-compatible server for other front ends.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="For --web and --serve; 0 takes any free one.")
    ] = None,
) -> None:
    """Talk to a model, or to two side by side. A base model continues your text, a chat model converses."""
    if len(targets or ()) > 2:
        raise BuddyError(f"{len(targets or ())} models: one answers, or two side by side; leave the others out")
    prompt, system = _argument("--prompt", prompt), _argument("--system", system)
    way = serving.see_fits(context, targets)  # web, serve and port, and what they go with
    from buddygpt.cli.session import COMMANDS, Session
    from buddygpt.cli.speech import Hearing, tell
    from buddygpt.conversation.params import check
    from buddygpt.model.sampling import Sampling

    sampling = check(Sampling(max_new_tokens, temperature, top_p, seed))
    if way is not None:
        serving.run(way, targets[0] if targets else None, system or "", sampling, port)
        return
    renderer = Renderer(stderr=True)
    speakers = _open(targets or [None], sampling, renderer)
    for speaker in speakers if system else ():
        if not speaker.talk.converses:
            raise BuddyError(f"--system: {speaker.name} is a base model, it has no system message")
        speaker.talk.set_system(system or "")
    hearing = Hearing(speakers, figures=prompt is None)
    if prompt is not None:
        Session(speakers, hearing, renderer).say(prompt)
        if not all(speaker.replies for speaker in speakers):  # why was told
            raise typer.Exit(2)
    elif sys.stdin is not None and sys.stdin.isatty():
        for speaker in speakers:
            kind = "a chat model" if speaker.talk.converses else "a base model, which goes on with your text"
            tell(kind if len(speakers) == 1 else f"{speaker.name}: {kind}")
        tell("/help lists commands, Ctrl-D ends")
        with lines.Keyboard(list(COMMANDS), tell) as keyboard:
            Session(speakers, hearing, renderer, keyboard).run(keyboard.lines())
    else:
        Session(speakers, hearing, renderer).run(lines.piped_lines(tell))


def _open(targets: Sequence[str | None], sampling: Sampling, renderer: Renderer) -> list[Speaker]:
    """The models that are meant; one that is named twice is loaded once."""
    from buddygpt.cli.speech import Speaker
    from buddygpt.stages.chat import open_conversation

    speakers: list[Speaker] = []
    for i, target in enumerate(targets):
        name = target or "the newest model"
        if target in targets[:i]:
            name, talk = f"{name} (2)", speakers[targets.index(target)].talk.another(renderer.emit)
        else:
            talk = open_conversation(target, options.RUNS, sampling, renderer.emit)
        if len(targets) > 1:
            talk.emit = partial(_named, renderer, name)
        speakers.append(Speaker(name, talk))
    return speakers


def _named(renderer: Renderer, name: str, event: Event) -> None:
    """A caution, and whose."""
    renderer.emit(Caution(f"{name}: {event.text}") if isinstance(event, Caution) else event)


def _argument(option: str, text: str | None) -> str | None:
    """What was given to an option; bytes that are no text in the terminal's encoding are perhaps in another."""
    if text is None or not any("\udc80" <= char <= "\udcff" for char in text):
        return text
    repaired = lines.decode(os.fsencode(text))
    if repaired is None:
        raise BuddyError(f"{option}: the text is neither UTF-8 nor GBK")
    return repaired
