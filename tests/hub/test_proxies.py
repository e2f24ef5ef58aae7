"""Hubs asked through the environment's proxies, or past them."""

from __future__ import annotations

from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest
from huggingface_hub import close_session

from buddygpt.events import silent
from buddygpt.hub.fetch import fetch
from buddygpt.hub.proxies import check_proxies
from buddygpt.hub.resolve import resolve
from buddygpt.hub.settings import read_settings
from buddygpt.hub.wanted import Wanted
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection

from .conftest import FILES, serve

ID = "someone/mountains"


class Proxy(BaseHTTPRequestHandler):
    """Forwards what it is asked, and counts it by server."""

    seen: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        self.seen.append(address.netloc)
        connection = HTTPConnection(address.netloc)
        connection.request(self.command, f"{address.path}?{address.query}", headers=dict(self.headers))
        response = connection.getresponse()
        data = response.read()
        self.send_response(response.status)
        for key, value in response.getheaders():
            if key.lower() != "transfer-encoding":
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy(hubs, monkeypatch):
    seen: list[str] = []
    with serve(Proxy, seen=seen) as url:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, url)
        close_session()  # the library's client keeps to the proxies that it began with
        yield seen
    close_session()


def download(section: HubSection) -> None:
    answer = resolve({0: Wanted("here", ID, ID, ("data/a.jsonl",))}, section)[0][0]
    (path,), _ = fetch(answer, section, silent)
    assert path.read_bytes() == FILES["data/a.jsonl"]


@pytest.mark.parametrize("name", ["mirror", "huggingface", "modelscope"])
def test_none_goes_past_the_proxy_and_inherit_through_it(hubs, proxy, name):
    hub = getattr(hubs, name)
    host = urlsplit(hub.url).netloc
    direct = HubSection.model_validate({"order": [name], "proxy": {name: "none"}})
    download(direct)
    assert proxy == [] and hub.fetched
    inherit = HubSection.model_validate({"order": [name], "proxy": {n: "none" for n in vars(hubs) if n != name}})
    resolve({0: Wanted("here", ID, ID, ("*",))}, inherit)
    assert proxy == [host]
    answer = resolve({0: Wanted("here", ID, ID, ("data/b.jsonl",))}, inherit)[0][0]
    asked = len(hub.asked)
    fetch(answer, inherit, silent)
    assert len(proxy) - 2 == len(hub.asked) - asked > 0 and set(proxy) == {host}


def test_two_hubs_by_two_ways_at_once(hubs, proxy):
    section = HubSection.model_validate({"order": ["mirror", "modelscope"], "proxy": {"modelscope": "none"}})
    hubs.mirror.status = 503
    download(section)
    assert proxy == [urlsplit(hubs.mirror.url).netloc] and hubs.modelscope.fetched


def test_a_redirect_is_followed_by_the_hubs_own_way(hubs, proxy):
    hubs.mirror.beyond = hubs.huggingface.url
    download(HubSection.model_validate({"order": ["mirror"], "proxy": {"mirror": "none"}}))
    assert hubs.huggingface.fetched and proxy == []


@pytest.fixture
def socks(hubs, monkeypatch):
    """A SOCKS proxy in the environment, of which nobody may ask anything; without the packages for it."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:password@127.0.0.1:9")
    missing = {"socks", "socksio"}
    monkeypatch.setattr("buddygpt.hub.proxies.find_spec", lambda name: None if name in missing else name)
    return missing


def test_a_socks_proxy_without_support_is_told_with_the_cure_before_any_request(hubs, socks):
    with pytest.raises(BuddyError) as caught:
        download(HubSection())
    assert caught.value.lines == (
        'ALL_PROXY is a SOCKS proxy, which needs `pip install "httpx2[socks]"` for mirror, huggingface and '
        "`pip install pysocks` for modelscope; or go past it with "
        "hub.proxy={mirror: none, huggingface: none, modelscope: none}",
    )
    assert not any(hub.asked for hub in vars(hubs).values())


@pytest.mark.parametrize(("name", "module"), [("mirror", "socksio"), ("modelscope", "socks")])
def test_the_cure_is_the_one_that_the_hub_needs(hubs, socks, name, module):
    section = HubSection(order=[name])
    with pytest.raises(BuddyError, match=f"for {name}; or go past it with hub.proxy={{{name}: none}}"):
        check_proxies(read_settings(section))
    socks.discard(module)
    check_proxies(read_settings(section))


@pytest.mark.parametrize("name", ["mirror", "modelscope"])
def test_a_hub_past_a_socks_proxy_needs_no_support(hubs, socks, name):
    download(HubSection.model_validate({"order": [name], "proxy": {name: "none"}}))
    assert getattr(hubs, name).fetched


def test_an_old_socks_proxy_is_refused_where_the_client_does_not_know_it(hubs, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    with pytest.raises(BuddyError, match="knows no proxies of the kind socks4://"):
        check_proxies(read_settings(HubSection()))
