"""Tokens go to the configured origin, and to no other: mirrors, redirects, messages, files."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import HfApi, hf_hub_download

from buddygpt.events import silent
from buddygpt.hub.bundling import make_bundle
from buddygpt.hub.fetch import fetch
from buddygpt.hub.hubs import open_hubs
from buddygpt.hub.resolve import resolve
from buddygpt.hub.settings import read_settings
from buddygpt.hub.wanted import Wanted
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection

from .conftest import FILES, StandIn, _Handler, serve

ID = "someone/mountains"
HF, MS = "hf_granted0123456789", "ms-granted0123456789"


class Storage(_Handler):
    """Where a hub's redirect leads: it serves by the end of the address."""

    def name_of(self, path):
        text = path.path + "?" + path.query
        return next(name for name in FILES if name in text or name.replace("/", "%2F") in text)

    def told_of(self, data):
        return {}


@pytest.fixture
def storage():
    """On another host than the hubs: `localhost`, not `127.0.0.1`."""
    found = StandIn()
    with serve(Storage, "localhost", hub=found) as found.url:
        yield found


@pytest.fixture(autouse=True)
def tokens(hubs, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", HF)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", MS)


def download(section: HubSection):
    answer = resolve({0: Wanted("here", ID, ID, ("data/[ab].jsonl",))}, section)[0][0]
    paths, _ = fetch(answer, section, silent)
    assert [p.read_bytes() for p in paths] == [FILES["data/a.jsonl"], FILES["data/b.jsonl"]]
    return answer


@pytest.mark.parametrize(("name", "secret"), [("huggingface", HF), ("modelscope", MS)])
def test_a_token_goes_to_its_own_hub_and_not_where_that_leads(hubs, storage, name, secret):
    hub = getattr(hubs, name)
    hub.beyond = storage.url
    download(HubSection(order=[name]))
    assert hub.saw(secret) and len(storage.fetched) == 2
    assert not storage.saw(secret)  # neither as authorization nor in a cookie
    assert not any(other.saw(secret) for other in vars(hubs).values() if other is not hub)


def test_a_gated_set_is_served_to_who_has_a_token(hubs):
    hubs.huggingface.gated = True
    download(HubSection(order=["huggingface"]))


def test_a_mirror_is_told_no_token_unless_the_recipe_says_so(hubs, storage):
    download(HubSection(order=["mirror"]))
    assert hubs.mirror.fetched and not hubs.mirror.saw(HF)
    hubs.mirror.beyond = storage.url
    hubs.mirror.gated = True
    with pytest.raises(BuddyError, match="hf auth login"):
        download(HubSection(order=["mirror"]))
    section = HubSection(order=["mirror"], tokens=["huggingface", "mirror"])
    resolve({0: Wanted("here", ID, ID, ("*",))}, section)
    assert hubs.mirror.saw(HF) and not storage.saw(HF)


def test_no_hub_is_told_a_token_where_none_is_named(hubs):
    for name in ("huggingface", "modelscope"):
        download(HubSection(order=[name], tokens=[]))
    assert not any(hub.saw(HF) or hub.saw(MS) for hub in vars(hubs).values())


def test_what_others_ask_through_huggingface_hub_tells_a_mirror_no_token_either(hubs):
    open_hubs(read_settings(HubSection()))
    HfApi(hubs.mirror.url).dataset_info(ID, revision="main")
    hf_hub_download(ID, "data/a.jsonl", repo_type="dataset", endpoint=hubs.mirror.url)
    assert len(hubs.mirror.asked) == 3 and not hubs.mirror.saw(HF)


def test_a_mirror_that_leads_to_huggingface_gets_the_files_without_a_token(hubs):
    hubs.mirror.beyond = hubs.huggingface.url
    download(HubSection(order=["mirror"]))
    assert hubs.huggingface.fetched and not hubs.huggingface.saw(HF)


def test_no_token_is_told_or_written(hubs, tmp_path, capfd):
    told = []
    section = HubSection(order=["huggingface", "modelscope"])
    answer = download(section)
    make_bundle([answer], tmp_path / "bundle", section, told.append)
    for hub in (hubs.huggingface, hubs.modelscope):
        hub.status = 401
    with pytest.raises(BuddyError) as caught:
        resolve({0: Wanted("here", ID, ID, ("*",))}, section)
    out, err = capfd.readouterr()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (HF, MS):
        assert secret not in str(caught.value) + out + err + str(told) + json.dumps(answer.as_dict())
        assert not any(secret.encode() in data for data in written)
