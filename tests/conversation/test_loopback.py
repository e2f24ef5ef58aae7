"""What listens on this machine alone, and whom it hears."""

import asyncio
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.conversation.extras import NEEDS, see_extra
from buddygpt.conversation.loopback import SameSite, listen
from buddygpt.recipe.errors import BuddyError


def ask(headers, kind="http"):
    """What a request gets: the messages sent, and whether the app was reached."""
    sent, reached = [], []

    async def app(scope, receive, send):
        reached.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"in"})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers]}
    asyncio.run(SameSite(app, {"x-more": "1"})(scope, None, send))
    return sent, bool(reached)


HERE = ("127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:80", "127.0.0.1")


@pytest.mark.parametrize("host", HERE)
def test_its_own_page_is_heard(host):
    for origin in ([], [("origin", f"http://{host}")]):
        sent, reached = ask([("host", host), *origin])
        assert reached and sent[0]["headers"] == [(b"a", b"b"), (b"x-more", b"1")]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "")],
        [("host", "evil.example")],
        [("host", "127.0.0.1.evil.example")],
        [("host", "localhost.evil.example:7860")],
        [("host", "127.0.0.1@evil.example")],
        [("host", "192.168.0.7:7860")],
        [("host", "[::1")],
        [("host", "localhost"), ("host", "evil.example")],
        [("host", "localhost:7860"), ("origin", "http://evil.example")],
        [("host", "localhost:7860"), ("origin", "http://localhost:3000")],
        [("host", "localhost:7860"), ("origin", "https://localhost:7860")],
        [("host", "localhost:7860"), ("origin", "null")],
        [("host", "localhost:7860"), ("origin", "http://localhost:7860"), ("origin", "http://evil.example")],
    ],
)
def test_others_are_refused_before_the_app_hears_of_them(headers):
    sent, reached = ask(headers)
    assert not reached and sent[0]["status"] == 403


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_no_host_but_this_machines_gets_in(host):
    _, reached = ask([("host", host)])
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    assert not reached or name.lower().rpartition("@")[2] in ("127.0.0.1", "localhost", "[::1]")


def test_web_sockets_are_closed():
    sent, reached = ask([("host", "localhost")], "websocket")
    assert not reached and sent == [{"type": "websocket.close", "code": 1008}]


def test_the_first_port_or_another_that_is_free():
    with listen(0, 1) as one:
        address, port = one.getsockname()
        assert address == "127.0.0.1"
        with listen(None, port) as other:
            assert other.getsockname()[0] == "127.0.0.1" and other.getsockname()[1] not in (0, port)
        with pytest.raises(BuddyError, match=f"--port {port}: address already in use; choose another"):
            listen(port, 1)
    with listen(port, 1) as again:
        assert again.getsockname()[1] == port


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may take any port")
def test_a_port_for_root_alone_is_told():
    with pytest.raises(BuddyError, match="--port 80: permission denied"):
        listen(80, 1)


def test_a_machine_in_the_same_network_cannot_reach_it():
    with listen(0, 1) as place, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as outside:
        outside.settimeout(5)
        with pytest.raises(OSError):
            outside.connect(("127.0.0.2", place.getsockname()[1]))  # another address, though of this machine


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_told_with_what_brings_it(name, monkeypatch):
    from buddygpt.conversation import extras

    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(BuddyError, match=rf"--{name}: \w+ is not installed: pip install 'buddygpt\[{name}\]'"):
        see_extra(name)
