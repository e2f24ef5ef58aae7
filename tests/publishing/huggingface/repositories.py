"""Repositories: a bare git repository and its large files each, made and read with the system's git."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

POINTER = "version https://git-lfs.github.com/spec/v1\n"
LARGE = 10_000_000
"""Bytes from which a text is a large file too."""
ATTRIBUTES = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n"
    for ending in "7z bin bz2 gz h5 onnx ot parquet pickle pkl pt pth safetensors tar tgz zip zst".split()
)

GIT_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""),
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "TZ": "UTC",
}
"""Nothing of the user's own settings is read, nothing is written there."""


def git(folder: Path, *arguments: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=data, capture_output=True, env=GIT_ENVIRONMENT, check=False
    )
    if done.returncode:
        raise ValueError(done.stderr.decode().strip())
    return done.stdout


def pointer(sha256: str, size: int) -> bytes:
    """The text that git holds in a large file's place."""
    return f"{POINTER}oid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Entry:
    """One line of a tree.

    Args:
        oid: git's digest of the blob or tree; of a large file, of its pointer.
        size: bytes of the file itself.
        sha256: of a large file.
        pointer_size: bytes of a large file's pointer.
    """

    path: str
    folder: bool
    oid: str
    size: int = 0
    sha256: str | None = None
    pointer_size: int = 0


@dataclass
class Repository:
    """One repository of the stand-in.

    Args:
        kind: "models" or "datasets".
        name: owner/name.
        folder: the bare git repository, `objects` beside it holds large files by sha256.
    """

    kind: str
    name: str
    folder: Path
    private: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: dict[str, list[Entry]] = field(default_factory=dict)  # trees by commit, which never change

    def __post_init__(self):
        self.folder.mkdir(parents=True)
        git(self.folder, "init", "-q", "--bare", "-b", "main")
        git(self.folder, "config", "http.receivepack", "true")
        self.commit([("file", ".gitattributes", ATTRIBUTES.encode())], "initial commit")

    @property
    def store(self) -> Path:
        """Where large files lie, by sha256."""
        found = self.folder / "large"
        found.mkdir(exist_ok=True)
        return found

    def head(self, revision: str = "main") -> str | None:
        """The commit of a branch, tag or commit's name."""
        try:
            return git(self.folder, "rev-parse", "--verify", "-q", f"{revision}^{{commit}}").decode().strip()
        except ValueError:
            return None

    def commit(self, operations: list[tuple[str, str, bytes]], message: str) -> str:
        """One commit on main: ("file", path, bytes) writes, ("delete", path, b"") takes a file or a folder away."""
        text = message.encode()
        lines = [b"commit refs/heads/main\n", f"committer hub <hub@localhost> {int(time.time())} +0000\n".encode()]
        lines += [b"data %d\n" % len(text), text, b"\n"]
        if parent := self.head():
            lines.append(f"from {parent}\n".encode())
        for act, path, data in operations:
            if path.startswith(("/", '"')) or "\n" in path or ".." in path.split("/"):
                raise ValueError(f"bad path {path!r}")
            if act == "delete":
                lines.append(f"D {path}\n".encode())
            else:
                lines += [f"M 100644 inline {path}\n".encode(), b"data %d\n" % len(data), data, b"\n"]
        git(self.folder, "fast-import", "--quiet", data=b"".join(lines))
        found = self.head()
        assert found
        return found

    def tree(self, revision: str = "main") -> list[Entry]:
        """Everything at a commit, folders too, by path."""
        commit = revision if revision in self.seen else self.head(revision)
        assert commit, revision
        if commit not in self.seen:
            self.seen[commit] = self._list(commit)
        return self.seen[commit]

    def _list(self, commit: str) -> list[Entry]:
        entries = []
        for line in filter(None, git(self.folder, "ls-tree", "-r", "-t", "-l", "-z", commit).decode().split("\0")):
            about, _, path = line.partition("\t")
            _, kind, oid, size = about.split()
            entry = Entry(path, kind == "tree", oid, int(size) if size != "-" else 0)
            if kind == "blob" and entry.size < 200 and (data := self.blob(oid)).startswith(POINTER.encode()):
                told = dict(line.split(" ", 1) for line in data.decode().splitlines())
                entry = Entry(path, False, oid, int(told["size"]), told["oid"].removeprefix("sha256:"), len(data))
            entries.append(entry)
        return entries

    def entry(self, path: str, revision: str = "main") -> Entry | None:
        return next((entry for entry in self.tree(revision) if entry.path == path), None)

    def blob(self, oid: str) -> bytes:
        return git(self.folder, "cat-file", "blob", oid)

    def read(self, path: str, revision: str = "main") -> bytes:
        """A file's own bytes, also a large one's."""
        entry = self.entry(path, revision)
        assert entry and not entry.folder, path
        return (self.store / entry.sha256).read_bytes() if entry.sha256 else self.blob(entry.oid)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """All files but the hub's own."""
        names = [entry.path for entry in self.tree(revision) if not entry.folder and entry.path != ".gitattributes"]
        return {name: self.read(name, revision) for name in names}

    def history(self, revision: str = "main", path: str | None = None) -> list[tuple[str, str, str]]:
        """Commit, date and title, newest first."""
        where = ["--", path] if path else []
        form = ["--date=format-local:%Y-%m-%dT%H:%M:%S.000Z", "--format=%H%x00%cd%x00%s"]
        lines = git(self.folder, "log", *form, revision, *where).decode().splitlines()
        return [tuple(line.split("\0")) for line in lines]  # type: ignore[misc]

    def rules(self) -> str:
        """Which files git takes for large."""
        return self.read(".gitattributes").decode() if self.entry(".gitattributes") else ""

    def large(self, path: str, size: int, sample: bytes, rules: str) -> bool:
        """Whether a file of that name goes to the store, by the rules in .gitattributes or by what it is."""
        named = [line.split()[0] for line in rules.splitlines() if "filter=lfs" in line]
        found = any(fnmatch.fnmatch(path, rule) or fnmatch.fnmatch(path.rpartition("/")[2], rule) for rule in named)
        return found or size >= LARGE or b"\0" in sample

    def keep(self, sha256: str, data: bytes) -> bool:
        """Into the store, if it is what it says."""
        if hashlib.sha256(data).hexdigest() != sha256:
            return False
        with self.lock:
            (self.store / f"{sha256}.part").write_bytes(data)
            (self.store / f"{sha256}.part").replace(self.store / sha256)
        return True

    def holds(self, sha256: str) -> bool:
        return (self.store / sha256).is_file()
