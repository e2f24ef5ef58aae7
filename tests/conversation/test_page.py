"""The page in a real browser: Chromium, driven as a person would."""

import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from buddygpt.conversation.talk import Conversation
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.events import silent
from buddygpt.model.interop import load
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError
from tests.conversation.scripted import Scripted
from tests.conversation.started import ROOT, started
from tests.conversation.taught import SYSTEM, write_chat

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'buddygpt[web]'")
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'buddygpt[test]'"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def served(talks, first):
    """The page at an address; `talks` gives the tabs' talks in turn."""
    import uvicorn

    from buddygpt.conversation.desk import Desk
    from buddygpt.conversation.loopback import listen
    from buddygpt.conversation.page import make_page

    def begin(emit):
        talk = next(talks)
        talk.emit = emit
        return talk

    place = listen(0, 0)
    app = make_page(first, Desk(begin), "tiny <b>1</b>")
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a tab on a page whose talks are these; every address that is asked for is looked at."""
    contexts, servers, asked = [], [], []

    def opener(*talks, address=None, base=None, **options):
        if address is None:
            server = served(iter(talks), base or talks[0])
            address = server.__enter__()
            servers.append(server)
        context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1000, "height": 700}} | options)
        context.set_default_timeout(15_000)
        context.on("request", lambda request: asked.append(request.url))
        contexts.append(context)
        page = context.new_page()
        page.address = address
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(address)
        typing(page).wait_for()
        return page

    yield opener
    for i, context in enumerate(contexts):
        for page in context.pages:
            page.screenshot(path=tmp_path / f"{i}.png")
        context.close()
    for server in servers:
        server.__exit__(None, None, None)
    assert asked and [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def typing(page):
    return page.locator("textarea:not([disabled])").first


def say(page, text):
    typing(page).fill(text)
    typing(page).press("Enter")


def replies(page):
    return [text.rstrip("\n") for text in page.locator(".bot.message").all_inner_texts()]


def wait(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this never came about"
        time.sleep(0.02)


def wait_reply(page, *texts):
    wait(lambda: (page.wait_for_timeout(20), replies(page) == list(texts))[1])


def still(page):
    """The page no longer waits for a reply."""
    page.locator("button.submit-button").wait_for()


def test_chinese_typed_and_sent_with_enter_comes_in_bit_by_bit(open_page):
    gate = threading.Event()
    talk = Scripted(["春眠", lambda _: time.sleep(0.1), "不觉晓，", lambda _: gate.wait(20), "处处闻啼鸟。"])
    page = open_page(talk)
    try:
        say(page, "背一首诗")
        wait_reply(page, "春眠不觉晓，")
        assert typing(page).input_value() == ""
    finally:
        gate.set()
    wait_reply(page, "春眠不觉晓，处处闻啼鸟。")
    still(page)
    assert page.locator(".user.message").all_inner_texts() == ["背一首诗"]
    assert page.faults == []


def test_enter_that_ends_a_composition_does_not_send(open_page):
    talk = Scripted(["好"])
    page = open_page(talk)
    typing(page).focus()
    keys = page.context.new_cdp_session(page)
    keys.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    for kind in ("rawKeyDown", "keyUp"):
        # What Chromium makes of Enter while an input method has it.
        keys.send("Input.dispatchKeyEvent", {"type": kind, "key": "Process", "windowsVirtualKeyCode": 229})
    keys.send("Input.insertText", {"text": "你好"})
    page.wait_for_timeout(300)
    assert talk.asked == [] and typing(page).input_value() == "你好"
    typing(page).press("Shift+Enter")
    typing(page).type("再见")
    typing(page).press("Enter")
    wait_reply(page, "好")
    assert [text for text, *_ in talk.asked] == ["你好\n再见"]


def test_stop_ends_the_decoding_and_the_next_question_works(open_page):
    talk = Scripted(["一", *[lambda _: time.sleep(0.01), "。"] * 2000])
    page = open_page(talk)
    say(page, "数到两千")
    wait(lambda: (page.wait_for_timeout(20), "一。。。" in "".join(replies(page)))[1])
    page.locator("button.stop-button").click()
    still(page)
    wait(lambda: talk.closed)
    assert 4 <= len(talk.closed[0]) < 2000
    wait_reply(page, talk.closed[0])
    talk.script = ["在"]
    say(page, "还在吗")
    wait_reply(page, talk.closed[0], "在")


def test_the_fields_reach_the_talk(open_page):
    talk = Scripted(["好"])
    page = open_page(talk)
    page.get_by_text("Parameters").click()
    assert page.get_by_label("Seed").input_value() == ""
    page.get_by_label("System message").fill("你是老师。")
    page.get_by_label("number input for Temperature").fill("0.3")
    page.get_by_label("number input for Top-p").fill("0.7")
    page.get_by_label("number input for Most tokens of a reply").fill("9")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Seed").blur()
    say(page, "你好")
    wait_reply(page, "好")
    (text, system, sampling), *_ = talk.asked
    assert (text, system) == ("你好", "你是老师。")
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (9, 0.3, 0.7, 7)
    still(page)
    page.get_by_label("Seed").fill("")
    page.get_by_label("Seed").blur()
    say(page, "再见")
    wait_reply(page, "好", "好")
    assert talk.asked[-1][2].seed is None
    still(page)
    page.get_by_label("Seed").fill("-3")
    page.get_by_label("Seed").blur()
    say(page, "还在吗")
    page.get_by_text("seed=-3").wait_for()
    assert typing(page).input_value() == "还在吗" and len(talk.asked) == 2


def test_undo_retry_and_clear(open_page):
    talk = Scripted(["一"])
    page = open_page(talk)
    say(page, "甲")
    wait_reply(page, "一")
    still(page)
    say(page, "乙")
    wait_reply(page, "一", "一")
    still(page)
    talk.script = ["二"]
    page.get_by_label("Retry").last.click()
    wait_reply(page, "一", "二")
    still(page)
    page.get_by_label("Undo").last.click()
    wait_reply(page, "一")
    assert typing(page).input_value() == "乙"
    assert [m.content for m in talk.messages] == ["甲", "一"]
    page.get_by_label("Clear").click()
    wait_reply(page)
    wait(lambda: talk.messages == [])


HOSTILE = (
    "<script>window.taken = 1</script><img src=x onerror='window.taken = 2'>![x](http://192.0.2.1/a.png)\n\n\n"
    "    **bold** [bold]x[/bold] $a_b$ $$c^2$$ \\(d\\) `code`\n"
    "<b>b</b> &lt; https://192.0.2.1/ <think>想</think>\n- 一\n- 二"
)


def test_what_is_typed_and_said_is_shown_to_the_letter_and_does_nothing(open_page):
    talk = Scripted([HOSTILE])
    page = open_page(talk)
    say(page, HOSTILE)
    wait_reply(page, HOSTILE)
    assert page.locator(".user.message").all_inner_texts() == [HOSTILE]
    still(page)
    talk.script = [BuddyError(f"too long: {HOSTILE}")]
    say(page, "<img src=x onerror='window.taken = 3'>")
    page.get_by_text("too long: <script>").wait_for()
    still(page)
    assert typing(page).input_value() == "<img src=x onerror='window.taken = 3'>"
    assert replies(page) == [HOSTILE]
    assert page.evaluate("window.taken") is None
    assert page.locator(".message a, .message img, .message b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system(open_page, scheme):
    page = open_page(Scripted(["好"]), color_scheme=scheme)
    say(page, "你好")
    wait_reply(page, "好")
    shades = page.evaluate(
        """() => [document.body, document.querySelector('.bot.message')].map(e => {
            let under = e;
            while (getComputedStyle(under).backgroundColor == 'rgba(0, 0, 0, 0)') under = under.parentElement;
            return [getComputedStyle(under).backgroundColor, getComputedStyle(e).color] })"""
    )
    for ground, ink in shades:
        ground, ink = (sum(map(int, c.strip("rgb()").split(","))) / 3 for c in (ground, ink))
        assert (ground < 80 and ink > 170) if scheme == "dark" else (ground > 220 and ink < 90)


@pytest.mark.parametrize(
    ("locale", "shown"), [("zh-CN", "参数"), ("zh-TW", "参数"), ("en-GB", "Parameters"), ("fr-FR", "Parameters")]
)
def test_the_words_are_of_the_browsers_language(open_page, locale, shown):
    page = open_page(Scripted(["好"]), locale=locale)
    page.get_by_text(shown, exact=True).wait_for()
    page.get_by_text(shown, exact=True).click()
    for label in ("系统提示", "温度") if shown == "参数" else ("System message", "Temperature"):
        page.get_by_text(label, exact=True).wait_for()
    assert "__i18n__" not in page.inner_text("body")


def test_a_base_model_has_no_system_field_and_goes_on_with_each_text(open_page):
    talk = Scripted(["不觉晓"], converses=False)
    page = open_page(talk)
    page.get_by_text("was not taught to converse").wait_for()
    page.get_by_text("Parameters").click()
    assert page.get_by_label("System message").count() == 0
    say(page, "春眠")
    wait_reply(page, "不觉晓")
    page.get_by_label("Retry").last.click()
    wait(lambda: len(talk.closed) == 2)
    wait_reply(page, "不觉晓")


def test_two_tabs_have_talks_of_their_own_at_the_same_time(open_page):
    gate = threading.Event()
    first, second = Scripted(["甲", lambda _: time.sleep(0.01), "。"] * 500), Scripted(["乙"])
    page = open_page(first, second, base=Scripted([]))
    other = open_page(address=page.address)
    say(page, "一")
    wait(lambda: (page.wait_for_timeout(20), replies(page))[1])
    say(other, "二")
    wait_reply(other, "乙")
    assert not first.closed  # the long reply still comes in
    gate.set()
    assert [text for text, *_ in first.asked + second.asked] == ["一", "二"]


def test_a_tab_that_is_closed_ends_its_reply(open_page):
    talk = Scripted(["一", *[lambda _: time.sleep(0.01), "。"] * 2000])
    page = open_page(talk)
    say(page, "数")
    wait(lambda: (page.wait_for_timeout(20), replies(page))[1])
    page.close()
    wait(lambda: talk.closed)
    assert len(talk.closed[0]) < 2000


def test_it_fits_a_phone(open_page):
    page = open_page(
        Scripted(["春眠不觉晓" * 30 + "x" * 300]),
        viewport={"width": 390, "height": 844},
        is_mobile=True,
        has_touch=True,
    )
    say(page, "y" * 300)
    wait_reply(page, "春眠不觉晓" * 30 + "x" * 300)
    still(page)
    page.get_by_text("Parameters").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    for found in (typing(page), page.locator(".bot.message").first, page.locator("button.submit-button")):
        box = found.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_are_not_answered(headers, status):
    with served(iter(()), Scripted([])) as address:
        for path in ("/", "/config", "/gradio_api/queue/join"):
            body = None if path != "/gradio_api/queue/join" else b'{"data": [], "fn_index": 0, "session_hash": "x"}'
            request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"} | headers)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    found = answer.status
                    assert "default-src 'self'" in answer.headers["content-security-policy"]
            except urllib.error.HTTPError as error:
                found = error.code
            assert found == status or (status == 200 and found in (422, 500))


def test_the_command_shows_what_buddy_chat_says_and_asks_nobody_else(open_page, tmp_path):
    write_chat(tmp_path / "friend")
    model, tokenizer = load(tmp_path / "friend"), load_tokenizer(str(tmp_path / "friend"))
    talk = Conversation(model, tokenizer, Sampling(64, 0.0), silent)
    talk.set_system(SYSTEM)
    ours = ["".join(talk.say("你好")), "".join(talk.say("背诗"))]
    with started("chat", tmp_path / "friend", "--web", "--system", SYSTEM, "--temperature", 0, until="Ctrl-C ends") as (
        _,
        told,
    ):
        assert len(told) == 1 and told[0].startswith("talk to friend on http://127.0.0.1:")
        page = open_page(address=told[0].split()[4].rstrip(";"))
        say(page, "你好")
        wait_reply(page, ours[0])
        still(page)
        say(page, "背诗")
        wait_reply(page, *ours)
        port = page.address.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "buddygpt", "chat", "x", "--web", "--port", port], capture_output=True, text=True,
            check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            done.stderr
            == f"buddy: --port {port}: address already in use; choose another, or leave it out for a free one\n"
        )
