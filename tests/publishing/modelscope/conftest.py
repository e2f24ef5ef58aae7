"""A stand-in for ModelScope, the environment of somebody who is logged in there, and a parcel."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from buddygpt.hub.settings import read_settings
from buddygpt.publishing.parcel import Item
from buddygpt.recipe.hub import HubSection
from tests.publishing.modelscope.server import Elsewhere, Handler, Hub, serve

TOKEN = "ms-7e57ab1e-0000-4000-8000-0123456789ab"
USER = "lihua"


def make_files() -> dict[str, bytes]:
    noise = random.Random(7)
    return {
        "README.md": "---\nlicense: apache-2.0\n---\n# 小模型\n".encode(),
        "config.json": b'{"model_type": "qwen3"}\n',
        "images/loss.png": noise.randbytes(2_000),
        "model-00001-of-00003.safetensors": noise.randbytes(300_000),
        "model-00002-of-00003.safetensors": noise.randbytes(2_500_000),
        "model-00003-of-00003.safetensors": noise.randbytes(70_000),
        "tokenizer.json": noise.randbytes(90_000),
    }


@pytest.fixture
def files() -> dict[str, bytes]:
    return make_files()


@pytest.fixture
def folder(tmp_path, files) -> Path:
    root = tmp_path / "export"
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def items(folder, files) -> list[Item]:
    return [
        Item(name, folder / name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())
    ]


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No token, no proxy and no home of the developer's."""
    from modelscope_hub.config import set_default_config

    names = ["MODELSCOPE_API_TOKEN", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "BUDDY_HUBS", "HF_ENDPOINT", "NETRC"]
    for name in [*names, "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "ms-home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms-cache"))
    set_default_config(None)
    yield
    set_default_config(None)


@pytest.fixture
def hub(alone, monkeypatch):
    """A hub that knows the token which the environment holds."""
    with serve(Handler, Hub({TOKEN: USER})) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def elsewhere(hub):
    """Another host, whose blobs the hub knows."""
    with serve(Elsewhere, Hub({}, blobs=hub.blobs)) as other:
        yield other


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that a push would have waited."""
    import time

    waited: list[float] = []
    hurried = SimpleNamespace(**vars(time) | {"sleep": waited.append})
    monkeypatch.setattr("buddygpt.publishing.modelscope.time", hurried)
    return waited


@pytest.fixture
def remote(hub, waits):
    from buddygpt.publishing.remote import open_remote

    return open_remote("modelscope", read_settings(HubSection()))
