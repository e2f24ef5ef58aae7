"""A page in the browser to talk to a model on: Gradio's, on this machine only, and asking nothing of any other.

What was typed and said is shown as plain text: neither Markdown nor HTML, which could hide, run or fetch something.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from socket import socket
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from buddygpt.conversation.desk import Desk, Pairs
from buddygpt.conversation.loopback import SameSite
from buddygpt.conversation.params import change
from buddygpt.conversation.talk import Conversation
from buddygpt.conversation.words import CHINESE, ENGLISH
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError

HEADERS = {
    # The page's own scripts stand within it. What a text, or a fault of a library, would fetch lies elsewhere.
    "content-security-policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
CSS = """
.bubble-wrap { background: none !important }
.message-content .md { white-space: pre-wrap; overflow-wrap: anywhere }
"""
Ask = Callable[[str, Sampling], Iterator[Pairs]]
FONTS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")


def make_page(talk: Conversation, desk: Desk, name: str) -> Any:
    """The page, as an ASGI app.

    Args:
        talk: what a new tab begins with: its system message and sampling.
        desk: where the tabs' talks are.
        name: of the model, as a title.
    """
    words = gr.I18n(**{"en": ENGLISH, "zh": CHINESE, "zh-CN": CHINESE, "zh-TW": CHINESE})
    chat = talk.converses
    going = {"submit_btn": False, "stop_btn": True}
    still = {"submit_btn": True, "stop_btn": False}

    def draw(pairs: Pairs) -> list[dict[str, Any]]:
        turns = [turn for asked, said in pairs for turn in (("user", asked), ("assistant", said))]
        # Gradio takes text for HTML where it does not take it for Markdown, and images in it would be fetched.
        return [{"role": role, "content": {"type": "text", "text": html.escape(text, False)}} for role, text in turns]

    def comes_in(tab: str, ask: Ask, fields: Sequence[Any], text: str) -> Iterator[tuple[Any, Any]]:
        before = desk.shown(tab)
        try:
            for i, pairs in enumerate(ask(*_read(fields))):
                yield draw(pairs), gr.skip() if i else gr.Textbox(value="", **going)
        except BuddyError as error:
            gr.Warning(html.escape(str(error)))
        for caution in desk.cautions(tab):
            gr.Warning(html.escape(caution))
        after = desk.shown(tab)
        yield draw(after), gr.Textbox(value=text, **still) if text and after == before else gr.Textbox(**still)

    def send(request: gr.Request, text: str, *fields: Any) -> Iterator[tuple[Any, Any]]:
        if text.strip():
            tab = str(request.session_hash)
            yield from comes_in(tab, partial(desk.send, tab, text), fields, text)

    def retry(request: gr.Request, *fields: Any) -> Iterator[tuple[Any, Any]]:
        tab = str(request.session_hash)
        yield from comes_in(tab, partial(desk.retry, tab), fields, "")

    def stop(request: gr.Request) -> None:
        desk.stop(str(request.session_hash))

    def undo(request: gr.Request) -> tuple[Any, str]:
        text, pairs = desk.undo(str(request.session_hash))
        return draw(pairs), text

    def clear(request: gr.Request) -> list[Any]:
        desk.clear(str(request.session_hash))
        return []

    def leave(request: gr.Request) -> None:
        desk.leave(str(request.session_hash))

    with gr.Blocks(title=f"{name} · buddy", fill_height=True, analytics_enabled=False) as blocks:
        shown = gr.Chatbot(
            label=name, placeholder=None if chat else words("stateless"), render_markdown=False, latex_delimiters=[],
            height=320, scale=1, feedback_options=None, buttons=[], layout="bubble",
        )  # fmt: skip
        typed = gr.Textbox(
            show_label=False, placeholder=words("chat" if chat else "base"), max_lines=8, autofocus=True, **still
        )
        with gr.Accordion(words("fields"), open=False):
            system = gr.Textbox(talk.system, label=words("system"), max_lines=8, visible=chat)
            with gr.Row():
                sampling = talk.sampling
                temperature = gr.Slider(
                    0, 2, sampling.temperature, step=0.05, label=words("temperature"), info=words("greedy")
                )
                top_p = gr.Slider(0, 1, sampling.top_p, step=0.01, label=words("top_p"), info=words("share"))
            with gr.Row():
                most = min(sampling.max_new_tokens, talk.context)
                tokens = gr.Slider(1, talk.context, most, step=1, label=words("tokens"))
                seed = gr.Textbox(
                    "" if sampling.seed is None else str(sampling.seed), label=words("seed"), info=words("unset")
                )  # a Number shows 0 where it is empty
        fields, quiet = [system, temperature, top_p, tokens, seed], {"api_visibility": "private", "queue": False}
        flow: dict[str, Any] = {
            "outputs": [shown, typed], "api_visibility": "private", "concurrency_limit": None,
            "show_progress": "hidden",
        }  # fmt: skip
        typed.submit(send, [typed, *fields], **flow)
        shown.retry(retry, fields, **flow)
        typed.stop(stop, **quiet)
        shown.undo(undo, outputs=[shown, typed], **quiet)
        shown.clear(clear, outputs=[shown], **quiet)
        blocks.unload(leave)
    theme = gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"))
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None), blocks, "/", footer_links=[], run_history=False, root_path="",
        ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, i18n=words, theme=theme, css=CSS,
    )  # fmt: skip
    return SameSite(app, HEADERS)


def run_page(talk: Conversation, name: str, place: socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        talk: with the model, and what a new tab begins with.
        name: of the model, as a title.
        place: listens already.
        ready: called when the page can be asked for.
    """
    desk = Desk(lambda emit: talk.another(emit))
    app = make_page(talk, desk, name)
    ready()  # the socket listens: whoever comes now is answered when the server is up
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    with suppress(KeyboardInterrupt):
        _Server(config).run(sockets=[place])


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End, and cut off the pages that are still open, which is no fault to tell of."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def _read(fields: Sequence[Any]) -> tuple[str, Sampling]:
    """The system message and the sampling that the fields of the page hold."""
    system, temperature, top_p, tokens, seed = fields
    drawn = Sampling(int(tokens), float(temperature), float(top_p))
    return system.strip(), change(drawn, f"seed={''.join(seed.split()) or 'none'}")
