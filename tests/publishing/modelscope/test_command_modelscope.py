"""`buddy push --hub modelscope` as it is typed: exit codes, one line for a fault, and what the hub then holds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.publishing.modelscope.conftest import TOKEN, USER
from tests.publishing.modelscope.server import PRIVATE, PUBLIC, Fault

REPO = f"{USER}/mountains-base"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A model in transformers' own form, as an export leaves it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from buddygpt.data.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("finished") / "mountains"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 64}
    Qwen2ForCausalLM(
        Qwen2Config(vocab_size=270, num_attention_heads=2, num_key_value_heads=1, **sizes)
    ).save_pretrained(folder)
    train_tokenizer(["春眠不觉晓，处处闻啼鸟。" * 3], 270).save_pretrained(folder)
    return folder


@pytest.fixture
def push(finished, hub, waits, buddy, tmp_path, monkeypatch):
    """Run it in the folder where the model lies."""
    monkeypatch.setattr("buddygpt.publishing.delivery._LOOKS", (0.0,))
    shutil.copytree(finished, tmp_path / "mountains")

    def run(*arguments: str):
        done = buddy("push", "mountains", "--hub", "modelscope", "--repo", "mountains-base", *arguments)
        written = [path.read_bytes() for path in (tmp_path / "mountains").rglob("*") if path.is_file()]
        assert TOKEN not in done.out + done.err and not any(TOKEN.encode() in data for data in written)
        return done

    return run


def test_a_model_is_pushed_downloaded_by_their_client_and_loaded_without_us(push, hub, finished, tmp_path, capfd):
    import torch
    from modelscope_hub import HubApi, HubConfig
    from transformers import AutoModelForCausalLM

    done = push("--yes")
    assert done.code == 0 and f"{hub.url}/models/{REPO}" in (done.out + done.err).replace("\n", "")
    held = hub.repositories[REPO]
    assert held.visibility == PRIVATE and len(held.commits) == 1
    HubApi(HubConfig(endpoint=hub.url, token=TOKEN)).download_repo(REPO, "model", local_dir=tmp_path / "back")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "back", trust_remote_code=False).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(finished).state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_a_second_push_sends_nothing(push, hub):
    assert push("--yes").code == 0
    hub.asked.clear()
    assert push().code == 0
    assert not hub.steps("create", "batch", "blob", "commit")


def test_public_is_said_once_and_stays(push, hub):
    assert push("--yes", "--public").code == 0
    assert push("--yes").code == 0 and hub.repositories[REPO].visibility == PUBLIC


def test_a_dry_run_changes_nothing_and_needs_no_token(push, hub, monkeypatch):
    monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    done = push("--dry-run")
    assert done.code == 0 and "model.safetensors" in done.out + done.err and not hub.asked


@pytest.mark.parametrize(
    ("step", "fault", "code"),
    [
        ("whoami", Fault("refuse", 401, {"code": "InvalidAuthentication", "message": "no"}), 2),
        ("blob", Fault("refuse", 507), 2),
        ("blob", Fault("drop", after=1_000), 2),
        ("blob", Fault("onward", to="http://localhost:9"), 2),
        ("blob", Fault("forget"), 1),
        ("commit", Fault("refuse", 502), 2),
        ("commit", Fault("forget"), 1),
    ],
)
def test_a_fault_is_one_line_and_a_code_and_nothing_is_published(step, fault, code, push, hub):
    hub.always[step] = fault
    done = push("--yes")
    assert done.code == code
    told = [line for line in done.err.splitlines() if line.startswith("buddy: ")]
    assert len(told) == 1 and told[0].startswith("buddy: modelscope: ") and "Traceback" not in done.err
    assert all(not held.commits for held in hub.repositories.values())


def test_nobody_is_asked_in_a_script_and_nothing_is_made(push, hub, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    done = push()
    assert done.code == 2 and "--yes" in done.err and not hub.repositories
