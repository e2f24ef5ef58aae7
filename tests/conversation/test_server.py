"""The OpenAI-compatible server, asked by clients that were not written here."""

import os
import pty
import re
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM

from buddygpt.conversation.loopback import listen
from buddygpt.conversation.server import client_name, serving
from buddygpt.conversation.talk import Conversation
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.events import silent
from buddygpt.model import interop, proof
from buddygpt.model.interop import load
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError
from tests.conversation.started import started
from tests.conversation.taught import POEM, SYSTEM, TAUGHT, write_base, write_chat

openai = pytest.importorskip("openai", reason="openai is not installed: pip install 'buddygpt[serve]'")
pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'buddygpt[serve]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'buddygpt[serve]'")


@contextmanager
def command(folder):
    """`buddy chat MODEL --serve` until it answers, and where."""
    with started("chat", folder, "--serve", until="curl") as (child, told):
        address = re.search(r"http://127\.0\.0\.1:\d+/v1", told[-1])[0]
        yield child, told, address
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{address}/models", timeout=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    write_chat(place / "my friend")
    return place / "my friend"


@pytest.fixture(scope="module")
def running(folder):
    with command(folder) as found:
        yield found


@pytest.fixture(scope="module")
def client(running):
    return openai.OpenAI(base_url=running[2], api_key="none", max_retries=0)


def ask(client, *messages, **more):
    roles = ("user", "assistant") * len(messages)
    turns = [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]
    return client.chat.completions.create(model="my-friend", messages=turns, temperature=0, **more)


def test_it_says_where_it_is_and_how_to_ask(running, folder):
    _, told, address = running
    assert told[0].startswith(f"{folder}-hf: is made")
    assert told[1] == f"my-friend is served on {address}; Ctrl-C ends"
    done = subprocess.run(["bash", "-c", told[2] + " -sS"], capture_output=True, text=True, check=False)
    assert '"content"' in done.stdout, done.stderr


def test_the_openai_client_gets_what_buddy_chat_says(client, folder):
    talk = Conversation(load(folder), load_tokenizer(str(folder)), Sampling(64, 0.0), silent)
    first = "".join(talk.say("你好"))
    second = "".join(talk.say("背诗"))
    assert (first, second) == (TAUGHT["你好"], POEM)  # words, so that equality says something
    answer = ask(client, "你好")
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (first, "stop")
    assert ask(client, "你好", first, "背诗").choices[0].message.content == second


def test_a_system_message_reaches_the_model(client, folder):
    talk = Conversation(load(folder), load_tokenizer(str(folder)), Sampling(64, 0.0), silent)
    talk.set_system(SYSTEM)
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "你好"}]
    answer = client.chat.completions.create(model="my-friend", messages=turns, temperature=0)
    assert answer.choices[0].message.content == "".join(talk.say("你好")) != TAUGHT["你好"]


def test_streamed_text_comes_in_whole_characters_and_stops_at_the_end_mark(client):
    chunks = list(ask(client, "背诗", stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) > 3 and "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == POEM
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_most_tokens_are_kept(client):
    answer = ask(client, "背诗", max_tokens=3)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


def test_only_this_model_is_there(client):
    assert [model.id for model in client.models.list()] == ["my-friend"]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="other/model", messages=[{"role": "user", "content": "你好"}])


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_other_sites_are_not_answered(running, header):
    request = urllib.request.Request(f"{running[2]}/models", headers=header)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=5)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_transformers_chat_talks_with_it(running, tmp_path):
    master, slave = pty.openpty()
    base = running[2].removesuffix("/v1")
    child = subprocess.Popen(
        [sys.executable, "-m", "transformers.cli.transformers", "chat", "my-friend", base, "do_sample=False"],
        cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave,
        env=os.environ
        | {"TERM": "xterm", "COLUMNS": "100", "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}  # offline, it asks nobody
        | {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip
    os.close(slave)
    seen = b""

    def until(word, seconds=120):
        nonlocal seen
        end = time.monotonic() + seconds
        while word not in seen.decode("utf-8", "replace"):
            assert time.monotonic() < end, seen.decode("utf-8", "replace")
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536)

    try:
        until("already loaded")
        os.write(master, "背诗\n".encode())
        until("花落知多少？")
        seen = b""
        os.write(master, "你好\n".encode())
        until(TAUGHT["你好"])
        os.write(master, b"!exit\n")
        child.wait(30)
    finally:
        child.kill()
        child.wait()
        os.close(master)


def test_a_base_model_goes_on_with_a_text_and_the_server_ends_with_its_parent(tmp_path, monkeypatch):
    monkeypatch.setattr(interop, "reload", believed)
    write_base(tmp_path / "base")
    model, tokenizer = load(tmp_path / "base"), load_tokenizer(str(tmp_path / "base"))
    interop.export(model, tmp_path / "hf", tokenizer=tokenizer)
    ours = "".join(Conversation(model, tokenizer, Sampling(64, 0.0), silent).say("春眠不觉晓"))
    with listen(0, 0) as place:
        port = place.getsockname()[1]
    with pytest.raises(BuddyError, match="the server ended"):
        with serving(tmp_path / "hf", "base", port) as child:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
            more = {"model": "base", "prompt": "<|endoftext|>春眠不觉晓", "temperature": 0, "max_tokens": 64}
            answer = client.completions.create(**more)
            assert answer.choices[0].text == ours == POEM.removeprefix("春眠不觉晓")
            streamed = client.completions.create(**more, stream=True)
            assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == ours
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(model="base", messages=[{"role": "user", "content": "你好"}])
            child.stdin.close()  # what the end of this process would do, whatever it died of
            assert child.wait(20) == 0


def believed(scratch, config, tokenizer):
    """What `proof.reload` would tell, without the process that takes seconds."""
    model = AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32)
    return {"architecture": "known", "parameters": 1}, proof.logits_of(model, *proof.probe(config))


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    with pytest.raises(BuddyError) as told:
        with serving(tmp_path / "broken", "broken", 1):
            pytest.fail("it answers")
    assert len(told.value.lines) == 1 and "the server ended: " in str(told.value) and "Error" in str(told.value)


def test_names_that_clients_can_say():
    assert [client_name(name) for name in ("tiny", "我的 模型", "a/b@c:d", "..", "")] == [
        "tiny", "我的-模型", "a-b-c-d", "model", "model",
    ]  # fmt: skip
