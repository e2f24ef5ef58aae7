"""A model for a browser or for other front ends, on this machine until Ctrl-C."""

from __future__ import annotations

from pathlib import Path

from buddygpt.conversation.extras import see_extra
from buddygpt.conversation.loopback import ADDRESS, listen
from buddygpt.conversation.server import client_name, serve
from buddygpt.conversation.talk import Conversation
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.events import Emit, Note
from buddygpt.hub.presence import see_model
from buddygpt.model.exported import see_exported
from buddygpt.recipe.runs import export_place, find_model, model_name

PAGE_PORT, SERVER_PORT = 7860, 8000
"""Tried first, where none is asked for: those of Gradio and of `transformers serve`."""


def serve_web(talk: Conversation, name: str, port: int | None, emit: Emit) -> None:
    """A page to talk on.

    Args:
        talk: what each tab of a browser begins with.
        name: of the model.
        port: 7860 or another free one where left out.

    Raises:
        BuddyError: the port is taken, or Gradio is not installed.
    """
    see_extra("web")
    from buddygpt.conversation.page import serve_page

    with listen(port, PAGE_PORT) as place:
        address = f"http://{ADDRESS}:{place.getsockname()[1]}"
        serve_page(talk, name, place, lambda: emit(Note(f"talk to {name} on {address}; Ctrl-C ends")))


def serve_api(target: str | None, runs: Path, port: int | None, emit: Emit) -> None:
    """An OpenAI-compatible server.

    Args:
        target: a model folder, a run's name or folder, a hub id; the newest finished model where left out.
        runs: where runs lie.
        port: 8000 or another free one where left out.

    Raises:
        BuddyError: there is no such model, no architecture of transformers' own holds it, the port is taken, or
            packages are missing.
    """
    see_extra("serve")
    source = find_model(target, runs)
    if target is None:
        emit(Note(f"model: {source}"))
    if isinstance(source, str):
        see_model(source)
    with listen(port, SERVER_PORT) as place:  # held while the export is made
        tokenizer = load_tokenizer(str(source))
        exported = see_exported(source, export_place(source, "hf"), tokenizer, emit)
        number = place.getsockname()[1]
    name = client_name(model_name(source))
    if tokenizer.chat_template:
        path, body = "chat/completions", '"messages": [{"role": "user", "content": "你好"}]'
    else:
        start = tokenizer.eos_token  # what every document starts from in pretraining
        path, body = "completions", f'"prompt": "{start}春眠不觉晓", "max_tokens": 64'
        emit(Note("a base model: /v1/completions goes on with a text, /v1/chat/completions has no template for it"))
    address = f"http://{ADDRESS}:{number}/v1"

    def ready() -> None:
        emit(Note(f"{name} is served on {address}; Ctrl-C ends"))
        emit(Note(f"curl {address}/{path} -H 'Content-Type: application/json' -d '{{\"model\": \"{name}\", {body}}}'"))

    serve(exported.folder, name, number, ready)
