"""Large files: git LFS's batch API on the hub, and the store on another address, which takes signatures, no tokens."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from typing import TYPE_CHECKING

from .repositories import Repository
from .server import Refused, Request, Response, part_of, told

if TYPE_CHECKING:
    from .hub import HuggingFace

MEDIA = {"Content-Type": "application/vnd.git-lfs+json"}
_KEY = secrets.token_bytes(16)


def _signature(*words: str) -> str:
    return hmac.new(_KEY, "/".join(words).encode(), "sha256").hexdigest()


def stored_at(hub: HuggingFace, repository: Repository, sha256: str, act: str) -> str:
    """The signed address of a large file in the store."""
    signature = _signature(act, repository.name, sha256)
    return f"{hub.storage_url}/{repository.kind}/{repository.name}/{sha256}?act={act}&signature={signature}"


def batch(hub: HuggingFace, request: Request, repository: Repository) -> Response:
    """Tells for each object where it goes to or comes from; nothing where the hub already has it."""
    asked = request.json()
    upload = asked["operation"] == "upload"
    hub.admit(request, repository, write=upload)
    objects = []
    for item in asked["objects"]:
        sha256, size = item["oid"], item["size"]
        answer = {"oid": sha256, "size": size, "authenticated": True}
        if not upload and not repository.holds(sha256):
            answer["error"] = {"code": 404, "message": "Object does not exist"}
        elif not upload:
            answer["actions"] = {"download": {"href": stored_at(hub, repository, sha256, "get"), "expires_in": 900}}
        elif not repository.holds(sha256):
            answer["actions"] = _upload(hub, repository, sha256, size, asked.get("transfers", []))
        objects.append(answer)
    transfer = "multipart" if any("chunk_size" in str(item) for item in objects) else "basic"
    return told({"transfer": transfer, "objects": objects}, headers=MEDIA)


def _upload(hub: HuggingFace, repository: Repository, sha256: str, size: int, transfers: list[str]) -> dict:
    at_hub = f"{hub.url}/{'' if repository.kind == 'models' else 'datasets/'}{repository.name}.git/info/lfs"
    href = stored_at(hub, repository, sha256, "put")
    if "multipart" not in transfers or size <= hub.part_size:
        verify = {"href": f"{at_hub}/verify?signature={_signature('verify', repository.name, sha256)}"}
        return {"upload": {"href": href, "header": {}, "expires_in": 900}, "verify": verify}
    name = secrets.token_hex(8)
    hub.parts[name] = {}
    header = {"chunk_size": str(hub.part_size)}
    header |= {f"{n:05}": f"{href}&upload={name}&part={n}" for n in range(1, math.ceil(size / hub.part_size) + 1)}
    complete = f"{at_hub}/complete?upload={name}&signature={_signature('complete', repository.name, sha256)}"
    return {"upload": {"href": complete, "header": header, "expires_in": 900}}


def verify(hub: HuggingFace, request: Request, repository: Repository) -> Response:
    """Whether an upload came through."""
    sha256, size = request.json()["oid"], request.json()["size"]
    if request.query.get("signature") != _signature("verify", repository.name, sha256):
        raise Refused(403, "Invalid signature")
    if hub.hollow:
        return told({}, headers=MEDIA)
    if not repository.holds(sha256) or (repository.store / sha256).stat().st_size != size:
        raise Refused(404, "Object was not uploaded")
    return told({}, headers=MEDIA)


def complete(hub: HuggingFace, request: Request, repository: Repository) -> Response:
    """Puts the parts of a large upload together, if all are there with the digests that the store told."""
    asked = request.json()
    parts = hub.parts.get(request.query["upload"], {})
    if request.query.get("signature") != _signature("complete", repository.name, asked["oid"]):
        raise Refused(403, "Invalid signature")
    if [(item["partNumber"], item["etag"]) for item in asked["parts"]] != sorted(
        (number, _etag(data)) for number, data in parts.items()
    ):
        raise Refused(400, "One or more of the specified parts could not be found")
    if not hub.hollow and not repository.keep(asked["oid"], b"".join(data for _, data in sorted(parts.items()))):
        raise Refused(400, "Content does not match its sha256")
    return told({"success": True})


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def storage(hub: HuggingFace, request: Request) -> Response:
    """The store. As S3 does, it refuses a request that holds a token beside the signature."""
    kind, _, rest = request.path.strip("/").partition("/")
    name, _, sha256 = rest.rpartition("/")
    repository = hub.repositories.get((kind, name))
    act = {"PUT": "put", "GET": "get", "HEAD": "get"}.get(request.method, "none")
    if "authorization" in request.headers:
        return Response(
            400, b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
        )
    if repository is None or request.query.get("signature") != _signature(act, name, sha256):
        return Response(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
    if act == "get":
        if not repository.holds(sha256):
            return Response(404)
        return part_of((repository.store / sha256).read_bytes(), request, {"ETag": f'"{sha256}"'})
    if upload := request.query.get("upload"):
        hub.parts[upload][int(request.query["part"])] = request.body
    elif not hub.hollow and not repository.keep(sha256, request.body):
        return Response(400, b"<Error><Code>BadDigest</Code></Error>")
    return Response(200, b"", {"ETag": _etag(request.body)})
