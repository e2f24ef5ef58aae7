"""A stand-in for ModelScope on this machine: it keeps repositories, records every byte and fails where it is told to.

Routes and answers are those that modelscope_hub 0.5.1 asks and reads, and, where its source does not say, what others
have measured (see buddygpt/publishing/modelscope.py). It is judged in test_modelscope_standin.py by clients of others.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

PRIVATE, PUBLIC = 1, 5
FRESH = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "README.md": b"---\n---\nmade here\n",
}
"""What a repository holds when it is made."""
_NAME = r"(?P<owner>[^/]+)/(?P<name>[^/]+)"
_ROUTES = [
    ("POST", r"/api/v1/login", "login"),
    ("GET", r"/openapi/v1/users/me", "whoami"),
    ("POST", r"/api/v1/models", "create"),
    ("GET", rf"/openapi/v1/models/{_NAME}", "open_info"),
    ("GET", rf"/api/v1/models/{_NAME}", "info"),
    ("GET", rf"/api/v1/models/{_NAME}/repo/files", "list"),
    ("GET", rf"/api/v1/models/{_NAME}/revisions", "revisions"),
    ("GET", rf"/api/v1/models/{_NAME}/repo", "file"),
    ("POST", rf"/api/v1/repos/models/{_NAME}/info/lfs/objects/batch", "batch"),
    ("PUT", rf"/api/v1/repos/models/{_NAME}/blobs/(?P<oid>[0-9a-f]{{64}})/(?P<size>\d+)", "blob"),
    ("POST", rf"/api/v1/repos/models/{_NAME}/commit/(?P<branch>[^/]+)", "commit"),
    ("GET", r"/api/v1/repos/internalAccelerationInfo", "region"),
    ("GET", r"/cdn/(?P<oid>[0-9a-f]{64})", "cdn"),
]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Args:
        kind: refuse (with status and body), drop (after so many bytes of the body), lose (do it, answer nothing),
            forget (answer well, do nothing), onward (a redirect), mute (no answer for so many seconds), or slow (so
            many seconds for each 64 KiB).
    """

    kind: str
    status: int = 500
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    to: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One request, whole."""

    step: str
    line: str
    headers: str
    body: bytes

    def holds(self, secret: str) -> bool:
        return secret in self.line or secret in self.headers or secret.encode() in self.body


@dataclass
class Repository:
    visibility: int
    license: str
    files: dict[str, bytes] = field(default_factory=lambda: dict(FRESH))
    pointers: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """The state of a server.

    Args:
        people: user names by their tokens.
        readers: tokens that may not write.
        room: bytes of blobs that it takes in all.
        hashes: its list tells them of files that are no blobs, too.
        storage: address in front of the paths where blobs are to be sent; its own where None.
        plan: faults of the next requests of a step, by step; None for a request that goes well.
        always: a fault of all further requests of a step.
    """

    people: dict[str, str]
    readers: set[str] = field(default_factory=set)
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    room: int | None = None
    hashes: bool = True
    storage: str | None = None
    plan: dict[str, list[Fault | None]] = field(default_factory=dict)
    always: dict[str, Fault] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def steps(self, *names: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.step in names]

    def saw(self, secret: str) -> bool:
        return any(asked.holds(secret) for asked in self.asked)

    def fault(self, step: str) -> Fault | None:
        if waiting := self.plan.get(step):
            return waiting.pop(0)
        return self.always.get(step)


class _Refused(Exception):
    def __init__(self, status: int, body: Any):
        self.status, self.body = status, body


def _fail(status: int, code: int | str, message: str) -> _Refused:
    return _Refused(status, {"Code": code, "Message": message, "Success": False, "RequestId": "r-1"})


class Handler(BaseHTTPRequestHandler):
    """Answers for a `Hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        self.serve()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = [
            (step, m) for verb, route, step in _ROUTES if verb == self.command and (m := re.fullmatch(route, path))
        ]
        step, given = (found[0][0], found[0][1].groupdict()) if found else ("unknown", {})
        fault = self.hub.fault(step)
        body = self.read_body(fault)
        self.hub.asked.append(Asked(step, self.requestline, str(self.headers), body))
        if body is not None and fault and fault.kind == "drop":
            return self.hang_up()
        try:
            if fault and fault.kind == "refuse":
                raise _Refused(fault.status, fault.body)
            if fault and fault.kind == "onward":
                return self.answer(307, b"", {"Location": fault.to + self.path})
            if fault and fault.kind == "mute":
                time.sleep(fault.seconds)
                return self.hang_up()
            if step == "unknown":
                raise _fail(404, 404, "no such route")
            self.query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            with self.hub.lock:
                if fault and fault.kind == "forget":
                    told = self.pretend(step)
                else:
                    told = getattr(self, f"do_{step}")(body, **given)
        except _Refused as refused:
            told = refused
        if fault and fault.kind == "lose":
            return self.hang_up()
        if isinstance(told, _Refused):
            return self.answer(told.status, json.dumps(told.body).encode(), fault.headers if fault else {})
        if told is not None:
            self.answer(200, json.dumps(told, ensure_ascii=False).encode())

    def read_body(self, fault: Fault | None) -> bytes:
        left = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "drop":
            return self.rfile.read(min(left, fault.after))
        if fault and fault.kind == "slow":
            parts = []
            while left:
                parts.append(self.rfile.read(min(left, 1 << 16)))
                left -= len(parts[-1])
                time.sleep(fault.seconds)
            return b"".join(parts)
        return self.rfile.read(left)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (
            {"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args):
        pass

    def tokens(self) -> tuple[str, str]:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        cookies = dict(part.strip().split("=", 1) for part in self.headers.get("Cookie", "").split(";") if "=" in part)
        return bearer, cookies.get("m_session_id", "")

    def user(self) -> str | None:
        bearer, cookie = self.tokens()
        return self.hub.people.get(bearer) if bearer == cookie else None

    def writer(self, owner: str) -> str:
        if (user := self.user()) is None:
            raise _fail(400, 10030000001, "user not logged in")
        if user != owner or self.tokens()[0] in self.hub.readers:
            raise _fail(403, 403, "no write permission to repository")
        return user

    def repository(self, owner: str, name: str) -> Repository:
        held = self.hub.repositories.get(f"{owner}/{name}")
        if held is None or (held.visibility != PUBLIC and self.user() != owner):
            raise _fail(404, 10010205001, "模型不存在")
        return held

    def do_login(self, body: bytes):
        token = json.loads(body)["AccessToken"]
        if token not in self.hub.people:
            raise _fail(400, 10010103009, "AccessToken is invalid or expired")
        user = self.hub.people[token]
        data = json.dumps(
            {"Code": 200, "Success": True, "Data": {"AccessToken": "git-0", "Username": user, "Email": "a@b.cn"}}
        ).encode()
        cookie = f"m_session_id={token}; Path=/; Max-Age=2592000"
        self.answer(200, data, {"Set-Cookie": cookie})

    def do_whoami(self, body: bytes):
        if (user := self.hub.people.get(self.tokens()[0])) is None:
            raise _Refused(401, {"success": False, "code": "InvalidAuthentication", "message": "invalid token"})
        return {"success": True, "request_id": "r-1", "data": {"id": 7, "username": user}}

    def do_create(self, body: bytes):
        told = json.loads(body)
        self.writer(told["Path"])
        repo = f"{told['Path']}/{told['Name']}"
        if repo in self.hub.repositories:
            raise _fail(400, 10010101001, "该名称已被注册使用，请重新命名")
        self.hub.repositories[repo] = Repository(told["Visibility"], told["License"])
        return {"Code": 200, "Success": True, "Data": {"Path": told["Path"], "Name": told["Name"]}}

    def do_open_info(self, body: bytes, owner: str, name: str):
        held = self.hub.repositories.get(f"{owner}/{name}")
        if held is None or held.visibility != PUBLIC:
            raise _Refused(404, {"success": False, "code": "ResourceNotFound", "message": "not found"})
        return {"success": True, "data": {"id": f"{owner}/{name}", "private": False, "downloads": 0}}

    def do_info(self, body: bytes, owner: str, name: str):
        held = self.repository(owner, name)
        return {"Code": 200, "Data": {"Path": owner, "Name": name, "Visibility": held.visibility, "Id": 1}}

    def do_revisions(self, body: bytes, owner: str, name: str):
        self.repository(owner, name)
        return {
            "Code": 200,
            "Data": {"RevisionMap": {"Branches": [{"Revision": "master", "CreatedAt": 1}], "Tags": []}},
        }

    def do_list(self, body: bytes, owner: str, name: str):
        held = self.repository(owner, name)
        root = self.query.get("Root", "").strip("/")
        deep = self.query.get("Recursive", "False").lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for path, data in sorted(held.files.items()):
            if root and not path.startswith(f"{root}/"):
                continue
            folders = path.split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                folder = "/".join(folders[:depth])
                entries[folder] = {"Path": folder, "Name": folders[depth - 1], "Type": "tree", "Size": 0, "Sha256": ""}
            digest = hashlib.sha256(data).hexdigest() if self.hub.hashes or path in held.pointers else ""
            entries[path] = {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": len(data)}
            entries[path] |= {"Sha256": digest, "IsLFS": path in held.pointers, "Mode": "33188", "CommittedDate": 1}
        prefix = len(root) + 1 if root else 0
        files = [entry for path, entry in entries.items() if deep or "/" not in path[prefix:]]
        return {"Code": 200, "Success": True, "Data": {"Files": files, "LatestCommitter": {}}}

    def do_file(self, body: bytes, owner: str, name: str):
        held, path = self.repository(owner, name), self.query["FilePath"]
        if path not in held.files:
            raise _fail(404, 10010205002, "文件不存在")
        if path in held.pointers:
            oid = hashlib.sha256(held.files[path]).hexdigest()
            there = self.hub.url.replace("127.0.0.1", "localhost")
            return self.answer(302, b"", {"Location": f"{there}/cdn/{oid}?auth_key=1-2-3&filename={quote(path)}"})
        self.serve_bytes(held.files[path])

    def do_region(self, body: bytes):
        return {"Code": 200, "Data": {"Enabled": False, "InternalRegionQueryAddress": "", "RegionID": ""}}

    def do_cdn(self, body: bytes, oid: str):
        self.serve_bytes(self.hub.blobs[oid])

    def serve_bytes(self, data: bytes) -> None:
        if wanted := self.headers.get("Range"):
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or len(data) - 1), len(data) - 1)
            told = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return self.answer(206, data[first : last + 1], told | {"Content-Type": "application/octet-stream"})
        return self.answer(200, data, {"Content-Type": "application/octet-stream"})

    def do_batch(self, body: bytes, owner: str, name: str):
        self.writer(owner)
        self.repository(owner, name)
        wanted = []
        for blob in json.loads(body)["objects"]:
            oid, size = blob["oid"], blob["size"]
            if len(self.hub.blobs.get(oid, b"-" * (size + 1))) == size:
                continue  # it leaves out what it has
            if self.hub.room is not None and sum(map(len, self.hub.blobs.values())) + size > self.hub.room:
                wanted.append({"oid": oid, "size": size, "error": {"code": 507, "message": "insufficient storage"}})
                continue
            href = f"{self.hub.storage or self.hub.url}/api/v1/repos/models/{owner}/{name}/blobs/{oid}/{size}"
            upload = {"href": href, "offset": 0, "upload_header": {"Range": "bytes=0-"}, "upload_parameters": {}}
            wanted.append({"oid": oid, "size": size, "actions": {"upload": upload}})
        return {"Code": 200, "Success": True, "Data": {"objects": wanted, "reused-objects": []}}

    def do_blob(self, body: bytes, owner: str, name: str, oid: str, size: str):
        self.writer(owner)
        if hashlib.sha256(body).hexdigest() != oid or len(body) != int(size):
            raise _fail(400, 10030000002, "the content is not what its name says")
        self.hub.blobs[oid] = body
        return {"Code": 200, "Data": {}, "Message": "success", "Success": True}

    def do_commit(self, body: bytes, owner: str, name: str, branch: str):
        self.writer(owner)
        held, told = self.repository(owner, name), json.loads(body)
        files, pointers = dict(held.files), set(held.pointers)
        if branch != "master" or not told["actions"]:
            raise _fail(400, 10030000003, "no such branch, or nothing to do")
        for action in told["actions"]:
            path = action["path"]
            if action["action"] == "delete" and path not in files:
                raise _fail(400, 10030000001, "commit rejected by repository policy")
            pointers.discard(path)
            if action["action"] == "delete":
                del files[path]
            elif action["type"] == "lfs":
                if len(self.hub.blobs.get(action["sha256"], b"")) != action["size"]:
                    raise _fail(400, 10030000004, "the blob of a pointer is not there")
                files[path] = self.hub.blobs[action["sha256"]]
                pointers.add(path)
            else:
                files[path] = base64.b64decode(action["content"], validate=True)
                assert len(files[path]) == action["size"]
        held.files, held.pointers = files, pointers
        held.commits.append(told["commit_message"])
        return {"Code": 200, "Success": True, "Data": {"oid": hashlib.sha1(body).hexdigest()}}

    def pretend(self, step: str):
        return {"Code": 200, "Success": True, "Message": "success", "Data": {}}


class Elsewhere(Handler):
    """Another host: it takes all, whatever it is."""

    def serve(self) -> None:
        body = self.read_body(None)
        self.hub.asked.append(Asked("elsewhere", self.requestline, str(self.headers), body))
        if self.command == "PUT":  # as an object store would, of which the hub knows
            oid = urlsplit(self.path).path.split("/")[-2]
            self.hub.blobs[oid] = body
        self.answer(200, json.dumps(self.pretend("")).encode())


@contextmanager
def serve(handler: type[Handler], hub: Hub) -> Iterator[Hub]:
    """The server in a thread; its address is the hub's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"hub": hub}))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # a connection that a test breaks is no news
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
