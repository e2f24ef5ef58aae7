"""What we send to ModelScope, through its own client, in good and in bad weather."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import traceback
from functools import partial

import pytest

from buddygpt.hub.settings import read_settings
from buddygpt.publishing.parcel import Item
from buddygpt.publishing.remote import NotThere, open_remote
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.hub import HubSection
from tests.publishing.modelscope.conftest import TOKEN, USER, make_files
from tests.publishing.modelscope.server import FRESH, PRIVATE, PUBLIC, Fault, Handler, Hub, Repository, serve

REPO = f"{USER}/tiny"
STEPS = ["whoami", "open_info", "info", "create", "list", "batch", "blob", "commit"]
BLOBS = [name for name in make_files() if name.endswith(".safetensors")] + ["images/loss.png", "tokenizer.json"]


def send(remote, items, **more) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    remote.send(REPO, items, "first push", lambda done, total: told.append((done, total)), **more)
    return told


def push(remote, items) -> None:
    """All steps of a push in their order, as the stage has them."""
    remote.login()
    if remote.visibility(REPO) is None:
        remote.create(REPO, private=True)
    held = remote.listing(REPO)
    send(remote, [item for item in items if held.get(item.name) is None or held[item.name].digest[7:] != item.sha256])


def fault_of(work) -> BuddyError:
    """What it raises for people: one line that tells no token, no address of a blob and no client's class."""
    with pytest.raises(BuddyError) as raised:
        work()
    told = "".join(traceback.format_exception(raised.value))
    assert TOKEN not in told and "Bearer" not in told and "/blobs/" not in told
    (line,) = raised.value.lines
    assert "\n" not in line and "modelscope" in line.lower() and "HubError" not in line
    return raised.value


@pytest.fixture
def made(hub) -> Repository:
    hub.repositories[REPO] = Repository(PRIVATE, "apache-2.0")
    return hub.repositories[REPO]


def lacking(hub, items) -> set[str]:
    """Items whose blobs the hub has not."""
    return {item.name for item in items if item.name in blobs_of(items) and item.sha256 not in hub.blobs}


def blobs_of(items) -> set[str]:
    from modelscope_hub._upload import _upload_mode

    return {item.name for item in items if _upload_mode(item.name, item.size, "model") == "lfs"}


# Who pushes


def test_the_login_is_the_tokens(remote):
    assert remote.login() == USER


def test_the_login_of_the_clients_command_is_found(hub, monkeypatch, capfd):
    from modelscope_hub.cli.main import run_cmd

    monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    monkeypatch.setattr("getpass.getpass", lambda *_: TOKEN)
    monkeypatch.setattr(sys, "argv", ["modelscope", "login"])
    try:
        run_cmd()
    except SystemExit as stop:
        assert not stop.code
    assert open_remote("modelscope", read_settings(HubSection())).login() == USER
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "  ")  # a blank variable is none
    assert open_remote("modelscope", read_settings(HubSection())).login() == USER


def test_without_a_token_nothing_is_asked_and_the_cure_is_told(hub, monkeypatch):
    monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    fault = fault_of(open_remote("modelscope", read_settings(HubSection())).login)
    assert "`modelscope login`" in str(fault) and "MODELSCOPE_API_TOKEN" in str(fault) and fault.exit_code == 2
    assert not hub.asked


def test_a_recipe_that_tells_modelscope_no_token_is_obeyed(hub):
    fault = fault_of(open_remote("modelscope", read_settings(HubSection(tokens=["huggingface"]))).login)
    assert "hub.tokens" in str(fault) and not hub.asked


@pytest.mark.parametrize("bad", ["ms-\u4e2d\u6587", "ms-1 2", "ms-1\r\nX: 1", "ms-\x00"])
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(bad, hub, monkeypatch):
    if "\x00" in bad:
        bad = "ms-\x01"  # no environment holds a NUL
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", bad)
    fault = fault_of(open_remote("modelscope", read_settings(HubSection())).login)
    assert "character" in str(fault) and bad not in str(fault) and not hub.asked


@pytest.mark.parametrize("junk", [b"", b"\x80\x04junk", b"cbuddygpt.nowhere\nThing\n."])
def test_a_login_file_that_is_cut_is_told(junk, alone, monkeypatch, tmp_path):
    place = tmp_path / "ms-home" / "credentials" / "cookies"
    place.parent.mkdir(parents=True)
    place.write_bytes(junk)
    fault = fault_of(lambda: open_remote("modelscope", read_settings(HubSection())).login())
    assert "log in anew" in str(fault) or "`modelscope login`" in str(fault)


UNKNOWN = [
    Fault("refuse", 401, {"success": False, "code": "InvalidAuthentication", "message": f"bad token {TOKEN}"}),
    Fault("refuse", 400, {"Code": 10010103009, "Message": "AccessToken is invalid or expired", "Success": False}),
    Fault("refuse", 400, {"Code": 10030000001, "Message": "user not logged in", "Success": False}),
    Fault("refuse", 200, {"Code": 10990101001, "Message": "用户未登录", "Success": False}),
    Fault("refuse", 401, {}),
]


@pytest.mark.parametrize(
    ("step", "fault"),
    [*((step, UNKNOWN[2]) for step in STEPS), *(("whoami", f) for f in UNKNOWN), ("batch", UNKNOWN[3])],
)
def test_a_wrong_token_is_told_at_once_whatever_the_hub_calls_it(step, fault, hub, remote, items, waits):
    hub.always[step] = fault
    told = fault_of(partial(push, remote, items))
    assert "does not know the token of MODELSCOPE_API_TOKEN" in str(told) and not isinstance(told, BrokenOff)
    assert not waits and len(hub.steps(step)) == 1
    assert all(not held.commits for held in hub.repositories.values())


def test_a_token_that_may_only_read_is_told_so(hub, remote, items, made):
    hub.readers.add(TOKEN)
    assert "may write" in str(fault_of(partial(push, remote, items)))
    assert made.files == FRESH


# The repository


@pytest.mark.parametrize(("private", "level"), [(True, PRIVATE), (False, PUBLIC)])
def test_a_missing_repository_is_made_as_asked(private, level, hub, remote):
    assert remote.visibility(REPO) is None
    remote.create(REPO, private=private)
    assert hub.repositories[REPO].visibility == level
    assert remote.visibility(REPO) == ("private" if private else "public")
    assert remote.listing(REPO).keys() == FRESH.keys()


@pytest.mark.parametrize(
    ("license", "told"),
    [(None, "other"), ("apache-2.0", "apache-2.0"), ("cc-by-nc-4.0", "cc-by-nc-4.0"), ("x", "other")],
)
def test_a_licence_that_nobody_stated_is_not_told(license, told, hub, remote):
    remote.create(REPO, private=True, license=license)
    (asked,) = hub.steps("create")
    assert json.loads(asked.body)["License"].lower() == told


@pytest.mark.parametrize("level", [PRIVATE, PUBLIC])
def test_a_push_leaves_the_visibility_as_it_is(level, hub, remote, items, made):
    made.visibility = level
    push(remote, items)
    assert made.visibility == level and not hub.steps("create")


def test_a_name_that_others_have_is_told(hub, remote, made):
    assert "--repo" in str(fault_of(lambda: remote.create(REPO, private=True)))


def test_a_repository_of_somebody_elses_is_not_made(hub, remote):
    assert "with this token" in str(fault_of(lambda: remote.create("others/tiny", private=True)))


def test_a_repository_is_made_once_though_the_answer_was_lost(hub, remote):
    hub.plan["create"] = [Fault("lose")]
    remote.create(REPO, private=True)
    assert hub.repositories[REPO].visibility == PRIVATE


def test_a_list_that_is_a_refusal_is_no_empty_list(hub, remote, made):
    hub.always["list"] = Fault("refuse", 200, {"Code": 500, "Success": False, "Message": "busy", "Data": None})
    assert "refuses to list" in str(fault_of(lambda: remote.listing(REPO)))
    hub.always["list"] = Fault("refuse", 200, {"Code": 200, "Data": {}})
    assert "does not answer as ModelScope" in str(fault_of(lambda: remote.listing(REPO)))


def test_a_list_is_asked_for_anew_each_time(hub, remote, items, made):
    before = remote.listing(REPO)
    made.files["late.txt"] = b"late"
    assert remote.listing(REPO).keys() - before.keys() == {"late.txt"}
    assert all("no-cache" in asked.headers for asked in hub.steps("list"))


def test_files_that_are_listed_without_a_hash_are_hashed_here(hub, remote, items, made):
    send(remote, items)
    told = remote.listing(REPO)
    hub.hashes = False
    assert remote.listing(REPO) == told
    assert not hub.steps("cdn")


def test_no_repository_is_an_empty_list(remote):
    assert remote.listing(REPO) == {}


@pytest.mark.parametrize("name", ["README.md", "deep/notes.safetensors"])
def test_a_file_is_read_wherever_it_lies_and_the_storage_is_told_no_token(name, hub, remote, made, items):
    made.files[name] = items[-1].path.read_bytes()
    if name != "README.md":
        made.pointers.add(name)
        hub.blobs[items[-1].sha256] = made.files[name]
    assert remote.read(REPO, name) == made.files[name]
    assert len(hub.steps("cdn")) == (name != "README.md")
    assert not any(asked.holds(TOKEN) or "cookie" in asked.headers.lower() for asked in hub.steps("cdn"))


def test_a_file_that_is_not_there_cannot_be_read(remote, made):
    assert "refuses to give no.txt" in str(fault_of(lambda: remote.read(REPO, "no.txt")))


# What is sent


def test_all_of_a_push_is_seen_with_one_commit_and_nothing_before(hub, remote, items, files, made):
    told = send(remote, items)
    assert made.files == FRESH | files and made.pointers == set(BLOBS) & blobs_of(items)
    assert [asked.step for asked in hub.asked][-1] == "commit" and made.commits == ["first push"]
    total = sum(item.size for item in items)
    assert told == sorted(told) and told[-1] == (total, total) and len(told) > len(BLOBS)
    held = remote.listing(REPO)
    assert {item.name: f"sha256:{item.sha256}" for item in items}.items() <= {
        n: h.digest for n, h in held.items()
    }.items()


def test_a_second_push_sends_no_blob(hub, remote, items, made):
    push(remote, items)
    sent = len(hub.steps("blob"))
    send(remote, items)
    assert len(hub.steps("blob")) == sent


def test_equal_contents_are_sent_once(hub, remote, items, made, tmp_path):
    weights = items[-2]
    twin = Item("twin.safetensors", weights.path, weights.size, weights.sha256)
    send(remote, [weights, twin])
    assert len(hub.steps("blob")) == 1 and made.files["twin.safetensors"] == made.files[weights.name]


def test_files_that_are_gone_leave_with_the_same_commit(hub, remote, items, made):
    made.files["model.safetensors"] = b"stale"
    send(remote, items, gone=["model.safetensors"])
    assert "model.safetensors" not in made.files and len(made.commits) == 1


def test_names_in_any_script_arrive(hub, remote, made, tmp_path):
    (tmp_path / "a").write_bytes("中".encode())
    names = ["图/损失 曲线+1%.json", "deep/er/and deeper/x.txt"]
    sha = hashlib.sha256("中".encode()).hexdigest()
    send(remote, [Item(name, tmp_path / "a", 3, sha) for name in names])
    assert remote.listing(REPO).keys() == FRESH.keys() | set(names)


@pytest.mark.parametrize("name", ["config.json", "model-00003-of-00003.safetensors"])
@pytest.mark.parametrize("how", ["longer", "as long", "gone"])
def test_a_file_that_changes_meanwhile_is_not_published(name, how, hub, remote, items, made):
    path = next(item.path for item in items if item.name == name)
    data = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(data + b"x" if how == "longer" else b"x" + data[1:])
    with pytest.raises(BuddyError, match="changed while it was being pushed"):
        send(remote, items)
    assert made.files == FRESH


def test_nothing_is_printed_or_logged_and_the_terminal_stays_ours(hub, remote, items, capfd, caplog):
    hub.plan["blob"] = [Fault("refuse", 502), Fault("drop", after=10)]
    push(remote, items)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "") and not caplog.records


def test_a_push_needs_neither_modelscope_nor_torch(hub, items, made):
    code = (
        "import sys\n"
        "sys.modules['modelscope'] = None\n"
        "from pathlib import Path\n"
        "from buddygpt.hub.settings import read_settings\n"
        "from buddygpt.publishing.parcel import Item\n"
        "from buddygpt.publishing.remote import open_remote\n"
        "from buddygpt.recipe.hub import HubSection\n"
        "remote = open_remote('modelscope', read_settings(HubSection()))\n"
        f"item = Item({items[1].name!r}, Path({str(items[1].path)!r}), {items[1].size}, {items[1].sha256!r})\n"
        f"print(remote.login()); remote.send({REPO!r}, [item], 'm', lambda a, b: None)\n"
        "assert not {'torch', 'transformers', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{USER}\n", "")
    assert made.commits == ["m"]


# Bad weather


def test_a_connection_that_breaks_in_a_file_is_taken_up(hub, remote, items, files, made, waits):
    hub.plan["blob"] = [None, Fault("drop", after=1_000_000), Fault("drop", after=70_000)]
    send(remote, items)
    assert made.files == FRESH | files and len(made.commits) == 1
    assert waits[:2] == [1.0, 2.0]


@pytest.mark.parametrize("fault", [Fault("refuse", 500), Fault("refuse", 503), Fault("lose"), Fault("drop", after=9)])
def test_a_third_file_that_fails_once_is_sent_again_and_the_others_are_not(fault, hub, remote, items, files, made):
    hub.plan["blob"] = [None, None, fault]
    send(remote, items)
    assert made.files == FRESH | files and len(made.commits) == 1
    count = len(blobs_of(items))
    assert len(hub.steps("blob")) == count + (fault.kind != "lose")  # of what was lost, only the answer was


def test_a_file_that_keeps_failing_publishes_nothing_and_the_next_push_sends_what_lacks(
    hub, remote, items, files, made
):
    third = sorted(blobs_of(items))[2]
    hub.plan["blob"] = [None, None]
    hub.always["blob"] = Fault("drop", after=1_000)
    fault = fault_of(partial(push, remote, items))
    assert isinstance(fault, BrokenOff) and fault.exit_code == 2 and third in str(fault)
    assert "run the same command again" in str(fault)
    assert made.files == FRESH and not made.commits
    lack = lacking(hub, items)
    hub.always.clear()
    hub.asked.clear()
    push(remote, items)
    assert {len(asked.body) for asked in hub.steps("blob")} == {i.size for i in items if i.name in lack}
    assert len(lack) == len(blobs_of(items)) - 2 and made.files == FRESH | files


@pytest.mark.parametrize("step", ["whoami", "open_info", "info", "create", "list", "batch", "commit"])
@pytest.mark.parametrize("fault", [Fault("refuse", 502), Fault("drop"), Fault("refuse", 429, {}, {"Retry-After": "3"})])
def test_a_question_that_fails_once_is_asked_again(step, fault, hub, remote, items, files, waits):
    hub.plan[step] = [fault]
    push(remote, items)
    assert hub.repositories[REPO].files == FRESH | files and len(hub.repositories[REPO].commits) == 1
    assert waits == [3.0 if fault.status == 429 else 1.0]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", [Fault("refuse", 502, "<html>bad gateway"), Fault("drop")])
def test_a_question_that_keeps_failing_ends_the_push_in_one_line(step, fault, hub, remote, items, waits):
    hub.always[step] = fault
    told = fault_of(partial(push, remote, items))
    assert isinstance(told, BrokenOff) and "run the same command again" in str(told)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert all(not held.commits for held in hub.repositories.values())


def test_a_hub_that_asks_for_an_hour_of_rest_is_not_waited_for(hub, remote, items, made, waits):
    hub.always["commit"] = Fault("refuse", 429, {"Message": "too many commits"}, {"Retry-After": "1800"})
    assert "too many commits" in str(fault_of(partial(send, remote, items))) and not waits


def test_a_commit_that_the_hub_puts_off_is_made_a_little_later(hub, remote, items, made):
    hub.plan["commit"] = [
        Fault("refuse", 400, {"Code": 10030000001, "Message": "commit rejected by repository policy", "Success": False})
    ]
    send(remote, items)
    assert len(made.commits) == 1


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, remote, items, files, made):
    made.files["old.bin"] = b"old"
    hub.plan["commit"] = [Fault("lose")]
    send(remote, items, gone=["old.bin"])
    assert made.files == FRESH | files and len(made.commits) == 1


@pytest.mark.parametrize("step", STEPS)
def test_an_answer_that_is_no_hubs_is_told(step, hub, remote, items):
    hub.always[step] = Fault("refuse", 200, ["a portal's page"])
    fault = fault_of(partial(push, remote, items))
    assert isinstance(fault, BrokenOff) and all(not held.commits for held in hub.repositories.values())


QUOTA = [
    Fault("refuse", 403, {"success": False, "code": "QuotaLimitExceed", "message": "limit"}),
    Fault("refuse", 403, {"Code": 10020300001, "Message": "存储空间不足", "Success": False}),
    Fault("refuse", 507, {}),
    Fault("refuse", 200, {"Code": 400, "Message": "storage quota exceeded", "Success": False}),
]


@pytest.mark.parametrize("fault", QUOTA)
@pytest.mark.parametrize("step", ["create", "batch", "blob", "commit"])
def test_a_full_account_is_told_at_once_and_nothing_is_seen(step, fault, hub, remote, items, waits):
    hub.always[step] = fault
    told = fault_of(partial(push, remote, items))
    assert "no room is left" in str(told) and not waits and not isinstance(told, BrokenOff)
    assert all(held.files == FRESH for held in hub.repositories.values())


def test_a_hub_that_fills_up_in_the_middle_keeps_what_came_and_says_so_of_the_blob(hub, remote, items, made):
    hub.room = 400_000
    assert "no room is left to take model-00002" in str(fault_of(partial(push, remote, items)))
    assert made.files == FRESH
    hub.room = None
    hub.asked.clear()
    push(remote, items)
    assert len(hub.steps("blob")) < len(blobs_of(items)) and len(made.commits) == 1


def test_a_slow_hub_is_waited_for(hub, remote, items, files, made):
    hub.always["blob"] = Fault("slow", seconds=0.005)
    send(remote, items)
    assert made.files == FRESH | files


def test_a_mute_hub_is_not_waited_for_without_end(hub, remote, items, made, monkeypatch):
    monkeypatch.setattr("buddygpt.publishing.modelscope._PATIENCE", (1.0, 0.05))
    hub.always["blob"] = Fault("mute", seconds=0.3)
    assert "no answer in time" in str(fault_of(partial(send, remote, items)))
    assert made.files == FRESH


def test_a_hub_that_nobody_answers_for_is_told(hub, items, waits, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        fault = fault_of(open_remote("modelscope", read_settings(HubSection())).login)
    assert isinstance(fault, BrokenOff) and "no connection" in str(fault)


def test_a_hub_that_takes_a_blob_and_has_it_not_gets_no_commit(hub, remote, items, made):
    hub.always["blob"] = Fault("forget")
    told = fault_of(partial(push, remote, items))
    assert isinstance(told, NotThere) and "does not have it" in str(told)
    assert len(hub.steps("blob")) == 1 and not hub.steps("commit") and made.files == FRESH


def test_what_a_hub_takes_and_forgets_is_not_in_its_list(hub, remote, items, made):
    hub.always["commit"] = Fault("forget")
    send(remote, items)
    assert remote.listing(REPO).keys() == FRESH.keys()


# Whom the token is told


@pytest.mark.parametrize("step", STEPS)
def test_a_redirect_is_not_followed_and_the_other_host_is_told_nothing(step, hub, remote, items, elsewhere):
    hub.always[step] = Fault("onward", to=elsewhere.url.replace("127.0.0.1", "localhost"))
    told = fault_of(partial(push, remote, items))
    assert isinstance(told, BrokenOff) and "localhost" in str(told)
    assert not elsewhere.asked and all(not held.commits for held in hub.repositories.values())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_blobs_go_to_another_host_without_the_token(host, hub, remote, items, files, made, elsewhere):
    hub.storage = elsewhere.url.replace("127.0.0.1", host)
    send(remote, items)
    assert made.files == FRESH | files and len(elsewhere.asked) == len(blobs_of(items))
    for asked in elsewhere.asked:
        assert not asked.holds(TOKEN) and "authorization" not in asked.headers.lower()
        assert "cookie" not in asked.headers.lower()


def test_blobs_go_nowhere_without_tls(hub, remote, items, made):
    hub.storage = "http://storage.example:80"
    assert "without TLS" in str(fault_of(partial(send, remote, items)))
    assert made.files == FRESH


@pytest.mark.parametrize(
    "address",
    ["http://modelscope.cn", "http://10.0.0.7:8080", "https://me:secret@modelscope.cn"],
)
@pytest.mark.parametrize("variable", ["MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"])
def test_an_address_that_must_not_be_told_the_token_is_refused(variable, address, alone, monkeypatch):
    monkeypatch.setenv(variable, address)
    fault = fault_of(lambda: open_remote("modelscope", read_settings(HubSection())))
    assert "https" in str(fault) and "secret" not in str(fault)


@pytest.mark.parametrize(
    ("variable", "address", "page"),
    [
        (None, None, "https://modelscope.cn/models/a/b"),
        ("MODELSCOPE_DOMAIN", "modelscope.ai", "https://modelscope.ai/models/a/b"),
        ("MODELSCOPE_ENDPOINT", "https://hub.example:8443/", "https://hub.example:8443/models/a/b"),
        ("MODELSCOPE_ENDPOINT", "http://[::1]:80", "http://[::1]:80/models/a/b"),
    ],
)
def test_the_address_is_the_one_that_the_client_takes(variable, address, page, alone, monkeypatch, recwarn):
    if variable:
        monkeypatch.setenv(variable, address)
    assert open_remote("modelscope", read_settings(HubSection())).address("a/b") == page
    assert not recwarn.list


@pytest.mark.parametrize("endpoint", ["https://modelscope.cn", "https://www.modelscope.cn"])
def test_blobs_of_the_live_hub_go_with_the_token_to_its_own_host_only(endpoint, alone, monkeypatch):
    import requests

    from buddygpt.publishing.origins import guard_session, siblings

    def answer() -> requests.Response:
        told = requests.Response()
        told.status_code, told._content = 200, b"{}"
        return told

    seen: list[requests.PreparedRequest] = []
    session = requests.Session()
    session.send = lambda request, **given: seen.append(request) or answer()
    guard_session(session, "modelscope", (endpoint, *siblings(endpoint)), direct=False)
    hosts = [
        "lfs.modelscope.cn",
        "oss.aliyuncs.com",
        "lfs.modelscope.cn.evil.cn",
        "modelscope.cn:8443",
        "evil-modelscope.cn",
    ]
    for host in [endpoint.removeprefix("https://"), *hosts]:
        session.put(f"https://{host}/blob", data=b"", headers={"Authorization": f"Bearer {TOKEN}", "Cookie": TOKEN})
    assert [("Authorization" in r.headers, "Cookie" in r.headers) for r in seen] == [(True, True)] * 2 + [
        (False, False)
    ] * 4


def test_a_password_in_netrc_is_not_sent_in_the_tokens_place(hub, remote, items, made, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login me password swordfish\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    push(remote, items)
    assert all(f"Authorization: Bearer {TOKEN}" in asked.headers for asked in hub.asked)


def test_the_token_is_told_to_the_hub_in_headers_only(hub, remote, items, made):
    push(remote, items)
    assert hub.asked and not any(TOKEN in asked.line or TOKEN.encode() in asked.body for asked in hub.asked)


@pytest.mark.parametrize("direct", [True, False])
def test_proxies_are_gone_past_where_the_recipe_says_so(direct, hub, items, made, waits, monkeypatch):
    with serve(Handler, Hub({})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        section = HubSection(proxy={"modelscope": "none"}) if direct else HubSection()
        remote = open_remote("modelscope", read_settings(section))
        if direct:
            push(remote, items)
            assert len(made.commits) == 1 and not proxy.asked
        else:
            fault_of(partial(push, remote, items))
            assert proxy.asked and not hub.asked


def test_ctrl_c_ends_a_push_and_nothing_is_seen(hub, remote, items, made):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.send(REPO, items, "m", stop)
    assert made.files == FRESH
