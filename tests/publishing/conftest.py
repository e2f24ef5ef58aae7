"""The hubs' stand-ins. They answer on this machine's own address, and remember every byte."""

from __future__ import annotations

import pytest

from .huggingface.hub import HuggingFace


@pytest.fixture
def huggingface(monkeypatch, tmp_path):
    """A stand-in for Hugging Face that runs; this process's huggingface_hub knows no other, and no token."""
    from huggingface_hub import close_session, constants
    from huggingface_hub.utils import _http

    from buddygpt.hub import proxies

    monkeypatch.setattr(proxies, "_guarded", False)  # what an earlier test had it trust is another address now
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    close_session()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "BUDDY_HUBS", "BUDDY_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with HuggingFace(tmp_path / "hub").running() as hub:
        monkeypatch.setattr("buddygpt.hub.settings.HUGGINGFACE", hub.url)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # with `hf_xet` the client asks no server for LFS
        yield hub
    close_session()
    assert not hub.crashes, hub.crashes[0]
