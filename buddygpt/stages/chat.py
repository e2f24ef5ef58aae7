"""A talk with the model that the user means: here, on a page in the browser, or by other front ends."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from buddygpt.conversation.extras import see_extra
from buddygpt.conversation.loopback import ADDRESS, listen
from buddygpt.conversation.server import client_name, serving
from buddygpt.conversation.talk import Conversation
from buddygpt.data.tokenizer import largest_id, load_tokenizer
from buddygpt.events import Emit, Note
from buddygpt.hub.presence import see_model
from buddygpt.model.exported import see_exported
from buddygpt.model.interop import load
from buddygpt.model.sampling import Sampling
from buddygpt.model.shortlist import make_shortlist
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import export_place, find_model, model_name

PAGE_PORT, SERVER_PORT = 7860, 8000
"""Tried first, where none is asked for: those of Gradio and of `transformers serve`."""


def open_conversation(target: str | None, runs: Path, sampling: Sampling, emit: Emit) -> Conversation:
    """Load what the user means and begin a talk.

    Args:
        target: a model folder, a run's name or folder, a hub id; the newest finished model where left out.
        runs: where runs lie.

    Raises:
        BuddyError: there is no such model, or its files are damaged.
    """
    return _begin(_find(target, runs, emit), sampling, emit)


def serve_page(
    target: str | None, runs: Path, *, system: str, sampling: Sampling, port: int | None, emit: Emit
) -> None:
    """A page to talk on, until Ctrl-C.

    Args:
        target: as `open_conversation`.
        runs: where runs lie.
        system: system message to begin with.
        sampling: to begin with; the page has fields for it.
        port: 7860 or another free one where left out.

    Raises:
        BuddyError: as `open_conversation`; Gradio is not installed, the port is taken, or a base model was given a
            system message.
    """
    see_extra("web")
    from buddygpt.conversation.page import run_page

    with listen(port, PAGE_PORT) as place:
        source = _find(target, runs, emit)
        talk = _begin(source, sampling, emit)
        if system and not talk.converses:
            raise BuddyError("--system: this is a base model, it has no system message")
        talk.set_system(system)
        name, address = model_name(source), f"http://{ADDRESS}:{place.getsockname()[1]}"
        run_page(talk, name, place, lambda: emit(Note(f"talk to {name} on {address}; Ctrl-C ends")))


def serve_api(target: str | None, runs: Path, port: int | None, emit: Emit) -> None:
    """An OpenAI-compatible server, until Ctrl-C.

    Args:
        target: as `open_conversation`.
        runs: where runs lie.
        port: 8000 or another free one where left out.

    Raises:
        BuddyError: there is no such model, no architecture of transformers' own holds it, the port is taken, or
            packages are missing.
    """
    see_extra("serve")
    source = _find(target, runs, emit)
    with listen(port, SERVER_PORT) as place:  # held while the export is made
        tokenizer = load_tokenizer(str(source))
        exported = see_exported(source, export_place(source, "hf"), tokenizer, emit)
        number = place.getsockname()[1]
    name = client_name(model_name(source))
    if tokenizer.chat_template:
        path, body = "chat/completions", '"messages": [{"role": "user", "content": "你好"}], "max_tokens": 256'
    else:
        start = tokenizer.eos_token  # what every document starts from in pretraining
        path, body = "completions", f'"prompt": "{start}春眠不觉晓", "max_tokens": 256'
        emit(Note("a base model: /v1/completions goes on with a text, /v1/chat/completions has no template for it"))
    address = f"http://{ADDRESS}:{number}/v1"

    with suppress(KeyboardInterrupt), serving(exported.folder, name, number) as server:
        emit(Note(f"{name} is served on {address}; Ctrl-C ends"))
        emit(Note(f"curl {address}/{path} -H 'Content-Type: application/json' -d '{{\"model\": \"{name}\", {body}}}'"))
        server.wait()


def _find(target: str | None, runs: Path, emit: Emit) -> Path | str:
    """The model that is meant, there to be loaded; told where it was not named."""
    source = find_model(target, runs)
    if target is None:
        emit(Note(f"model: {source}"))
    if isinstance(source, str):
        see_model(source)
    return source


def _begin(source: Path | str, sampling: Sampling, emit: Emit) -> Conversation:
    tokenizer = load_tokenizer(str(source))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = load(source).to(device).eval()
    shortlist = make_shortlist(model, largest_id(tokenizer) + 1)
    return Conversation(model, tokenizer, sampling, emit, shortlist=shortlist)
