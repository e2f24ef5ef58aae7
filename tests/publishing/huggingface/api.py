"""What the hub's API answers, and the table of its addresses."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlencode

import yaml

from . import lfs, smart
from .repositories import Entry, Repository, pointer
from .server import Refused, Request, Response, part_of, told

if TYPE_CHECKING:
    from .hub import HuggingFace

_REPOSITORY = r"(?P<name>[^/]+/[^/]+?)"
_API = rf"/api/(?P<kind>models|datasets)/{_REPOSITORY}"
_PLAIN = rf"/(?:(?P<kind>datasets)/)?{_REPOSITORY}"
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Authentication required"'}


def _whoami(hub: HuggingFace, request: Request) -> Response:
    if request.token != hub.token:
        given = "authorization" in request.headers
        raise Refused(401, "Invalid credentials in Authorization header" if given else "Invalid username or password.")
    token = {"displayName": "test", "role": hub.role}
    auth = {"type": "access_token", "accessToken": token}
    return told({"type": "user", "id": "1", "name": hub.user, "fullname": "Some One", "orgs": [], "auth": auth})


def _create(hub: HuggingFace, request: Request) -> Response:
    if request.token != hub.token:
        raise Refused(401, "Invalid credentials in Authorization header")
    asked = request.json()
    name, kind = f"{asked.get('organization') or hub.user}/{asked['name']}", f"{asked.get('type') or 'model'}s"
    if hub.role != "write" or not name.startswith(f"{hub.user}/"):
        raise Refused(403, f"You don't have the rights to create a {kind[:-1]} there")
    url = f"{hub.url}/{'' if kind == 'models' else f'{kind}/'}{name}"
    if (kind, name) in hub.repositories:
        return told({"error": f"You already created this {kind[:-1]} repo", "url": url, "name": name}, 409)
    private = asked.get("private") or asked.get("visibility") == "private"
    hub.make(name, kind, private)
    return told({"url": url, "name": name, "id": name, "private": private})


def _settings(hub: HuggingFace, request: Request, repository: Repository) -> Response:
    hub.admit(request, repository, write=True)
    if "visibility" in request.json():
        repository.private = request.json()["visibility"] == "private"
    return told({"private": repository.private})


def _validate(hub: HuggingFace, request: Request) -> Response:
    """Front matter of a card: is it YAML, a mapping, of plain kinds? More the hub alone knows."""
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", request.json()["content"], re.DOTALL)
    errors = []
    try:
        data = yaml.safe_load(found[1]) if found else {}
        if not isinstance(data, dict):
            errors.append("YAML metadata must be a mapping")
        for key in ("tags", "language", "datasets", "license", "base_model"):
            value = data.get(key, []) if isinstance(data, dict) else []
            if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
                errors.append(f'"{key}" must be a string or an array of strings')
    except yaml.YAMLError as error:
        errors.append(f"Invalid YAML: {error}")
    warnings = [] if found else ["empty or missing yaml metadata in repo card"]
    report = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
    return told(report, 400 if errors else 200)


def _commit_of(repository: Repository, revision: str) -> str:
    commit = repository.head(revision)
    if commit is None:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def _info(hub: HuggingFace, request: Request, repository: Repository, revision: str = "main") -> Response:
    commit = _commit_of(repository, "main" if revision == "HEAD" else revision)
    siblings = []
    for entry in (entry for entry in repository.tree(commit) if not entry.folder):
        sibling = {"rfilename": entry.path}
        if "blobs" in request.query:
            large = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
            sibling |= {"size": entry.size, "blobId": entry.oid} | ({"lfs": large} if entry.sha256 else {})
        siblings.append(sibling)
    history = repository.history(commit)
    about = {
        "id": repository.name,
        "modelId": repository.name,
        "_id": "0" * 24,
        "author": repository.name.split("/")[0],
    }
    about |= {"sha": commit, "private": repository.private, "gated": False, "disabled": False, "tags": []}
    about |= {"downloads": 0, "likes": 0, "lastModified": history[0][1], "createdAt": history[-1][1]}
    return told(about | {"siblings": siblings})


def _described(repository: Repository, entry: Entry, commit: str, expand: bool) -> dict:
    data = {"type": "directory" if entry.folder else "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.sha256:
        data["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    if expand:
        oid, date, title = repository.history(commit, entry.path)[0]
        data["lastCommit"] = {"id": oid, "date": date, "title": title}
    return data


def _tree(hub: HuggingFace, request: Request, repository: Repository, revision: str, path: str | None) -> Response:
    commit = _commit_of(repository, revision)
    under = f"{path.strip('/')}/" if path and path.strip("/") else ""
    entries = [entry for entry in repository.tree(commit) if entry.path.startswith(under)]
    if request.query.get("recursive", "").lower() not in ("true", "1"):
        entries = [entry for entry in entries if "/" not in entry.path.removeprefix(under)]
    if under and not entries:
        raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
    start, expand = int(request.query.get("cursor", 0)), request.query.get("expand", "").lower() in ("true", "1")
    page = entries[start : start + hub.page]
    headers = {}
    if start + hub.page < len(entries):
        following = urlencode(request.query | {"cursor": str(start + hub.page)})
        headers["Link"] = f'<{hub.url}{quote(request.path)}?{following}>; rel="next"'
    return told([_described(repository, entry, commit, expand) for entry in page], headers=headers)


def _paths_info(hub: HuggingFace, request: Request, repository: Repository, revision: str) -> Response:
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    paths = parse_qs(request.body.decode())["paths"] if form else request.json()["paths"]
    commit = _commit_of(repository, revision)
    return told([_described(repository, e, commit, False) for e in repository.tree(commit) if e.path in paths])


def _refs(hub: HuggingFace, request: Request, repository: Repository) -> Response:
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head()}
    return told({"branches": [main], "tags": [], "converts": []})


def _preupload(hub: HuggingFace, request: Request, repository: Repository, revision: str) -> Response:
    hub.admit(request, repository, write=True)
    held = {entry.path: entry.sha256 or entry.oid for entry in repository.tree(_commit_of(repository, revision))}
    rules = request.json().get("gitAttributes") or repository.rules()
    answers = []
    for file in request.json()["files"]:
        sample = base64.b64decode(file.get("sample", ""))
        mode = "lfs" if repository.large(file["path"], file["size"], sample, rules) else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": held.get(file["path"])})
    return told({"files": answers})


def _commit(hub: HuggingFace, request: Request, repository: Repository, revision: str) -> Response:
    """One commit of NDJSON lines. All or nothing: large files must be in the store before."""
    hub.admit(request, repository, write=True)
    if hub.hollow:
        return told(
            {"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.url}/{repository.name}/commit/{'0' * 40}"}
        )
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with repository.lock:
        if header.get("parentCommit", repository.head()) != repository.head():
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        held = {entry.path for entry in repository.tree()}
        operations, tracked = [], []
        for line in lines:
            value, path = line["value"], line["value"].get("path")
            if line["key"] == "file":
                operations.append(("file", path, base64.b64decode(value["content"])))
            elif line["key"] == "lfsFile":
                if not repository.holds(value["oid"]):
                    raise Refused(
                        400,
                        f"Your push was rejected because an LFS pointer pointed to a file that does not exist: {path}",
                    )
                size = (repository.store / value["oid"]).stat().st_size
                operations.append(("file", path, pointer(value["oid"], size)))
                tracked += [] if repository.large(path, 0, b"", repository.rules()) else [path]
            elif line["key"] in ("deletedFile", "deletedFolder"):
                if path.rstrip("/") not in held:
                    raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                operations.append(("delete", path.rstrip("/"), b""))
        if tracked:  # the hub writes these rules itself, so that git finds the files
            rules = repository.rules()
            rules += "".join(
                f"{path.replace(' ', '[[:space:]]')} filter=lfs diff=lfs merge=lfs -text\n" for path in tracked
            )
            operations.append(("file", ".gitattributes", rules.encode()))
        commit = repository.commit(operations, header["summary"])
    return told({"success": True, "commitOid": commit, "commitUrl": f"{hub.url}/{repository.name}/commit/{commit}"})


def _resolve(hub: HuggingFace, request: Request, repository: Repository, revision: str, path: str) -> Response:
    commit = _commit_of(repository, revision)
    entry = repository.entry(path, commit)
    if entry is None or entry.folder:
        raise Refused(404, "Entry not found", "EntryNotFound")
    told_of = {"X-Repo-Commit": commit, "ETag": f'"{entry.sha256 or entry.oid}"'}
    if entry.sha256 is None:
        return part_of(repository.blob(entry.oid), request, told_of)
    told_of |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return Response(302, b"", told_of | {"Location": lfs.stored_at(hub, repository, entry.sha256, "get")})


def _git(hub: HuggingFace, request: Request, repository: Repository, service: str) -> Response:
    if "git-receive-pack" in (service, request.query.get("service")):
        if request.token is None:
            raise Refused(401, "Invalid username or password.", **CHALLENGE)
        hub.admit(request, repository, write=True)
    return smart.backend(request, repository, service)


ROUTES = [
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate),
    ("PUT", f"{_API}/settings", _settings),
    ("GET HEAD", _API, _info),
    ("GET HEAD", f"{_API}/revision/(?P<revision>.+)", _info),
    ("GET HEAD", f"{_API}/tree/(?P<revision>[^/]+)(?P<path>/.*)?", _tree),
    ("POST", f"{_API}/paths-info/(?P<revision>[^/]+)", _paths_info),
    ("GET HEAD", f"{_API}/refs", _refs),
    ("POST", f"{_API}/preupload/(?P<revision>[^/]+)", _preupload),
    ("POST", f"{_API}/commit/(?P<revision>[^/]+)", _commit),
    ("POST", f"{_PLAIN}/info/lfs/objects/batch", lfs.batch),
    ("POST", f"{_PLAIN}/info/lfs/verify", lfs.verify),
    ("POST", f"{_PLAIN}/info/lfs/complete", lfs.complete),
    ("GET POST", f"{_PLAIN}/(?P<service>info/refs|git-upload-pack|git-receive-pack)", _git),
    ("GET HEAD", f"{_PLAIN}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _resolve),
]
