"""Git's own protocol, by the system's `git http-backend`."""

from __future__ import annotations

import subprocess
from urllib.parse import urlsplit

from .repositories import GIT_ENVIRONMENT, Repository
from .server import Request, Response


def backend(request: Request, repository: Repository, service: str) -> Response:
    """What `git http-backend` answers for `info/refs`, `git-upload-pack` or `git-receive-pack`."""
    environment = GIT_ENVIRONMENT | {
        "GIT_PROJECT_ROOT": str(repository.folder.parent),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{repository.folder.name}/{service}",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": urlsplit(request.target).query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        "REMOTE_USER": "someone",
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = subprocess.run(["git", "http-backend"], input=request.body, capture_output=True, env=environment, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    return Response(int(headers.pop("Status", "200").split()[0]), body, headers)
