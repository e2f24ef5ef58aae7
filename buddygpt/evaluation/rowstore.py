"""Rows of benchmarks, kept as JSON lines in the columns that lm-eval's prompts expect: whole or not at all.

FOLDER/DIGEST/SUBJECT.SPLIT.jsonl   rows; DIGEST is of the files that they were read from, and of what is made of them
FOLDER/DIGEST/manifest.json         source, rows and bytes of each
FOLDER/last                         the digest that was asked for last
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import xxhash

from buddygpt.data.files.streams import told
from buddygpt.data.fingerprints import hash_file
from buddygpt.evaluation.catalog import Data
from buddygpt.evaluation.rows import RowFile, read_file
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full
from buddygpt.recipe.runs import write_atomically

_FORMAT = 1
"""Of the rows that are written; a change makes other digests."""


class RowStore:
    """A benchmark's rows in the cache.

    Args:
        name: of the benchmark that says where they are.
        data: what it says.
        subjects: its parts.
        folder: of all its rows, of whatever content.
    """

    def __init__(self, name: str, data: Data, subjects: Sequence[str], folder: Path):
        self.name, self.data, self.subjects, self.folder = name, data, subjects, folder
        made = data.model_dump_json(include={"subjects", "splits", "header", "choice", "columns"})
        self._form = xxhash.xxh3_128_hexdigest(f"{_FORMAT} {made}".encode())[:16]

    def last(self) -> dict[str, Any] | None:
        """The manifest of the rows that were found last, where they are still whole."""
        try:
            return self._manifest((self.folder / "last").read_text("utf-8").strip())
        except OSError:
            return None

    def keep(self, files: Sequence[RowFile], source: str) -> dict[str, Any]:
        """The manifest of the rows of some files, which are written unless the same have been before.

        Raises:
            BuddyError: a file or row that cannot be read; rows that are not as many as the benchmark has.
            BrokenOff: the disk is full.
        """
        try:
            digest = self._digest(files)
            manifest = self._manifest(digest) or self._write(files, digest, source)
            write_atomically(self.folder / "last", digest + "\n")
        except OSError as error:
            if is_disk_full(error):
                raise BrokenOff(f"{self.folder}: no space left for {self.name}; free some and start again") from None
            raise BuddyError(f"{error.filename or self.folder}: {error.strerror or error}") from None
        return manifest

    def paths(self, manifest: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
        """The files that a manifest tells, by subject and split."""
        found: dict[str, dict[str, Path]] = {}
        for entry in manifest["files"]:
            path = self.folder / manifest["digest"] / entry["file"]
            found.setdefault(entry["subject"], {})[entry["split"]] = path.absolute()
        return found

    def _digest(self, files: Sequence[RowFile]) -> str:
        """Of the files' content, and of what is made of it."""
        state = xxhash.xxh3_128(self._form.encode())
        hashes: dict[Path, str] = {}
        for file in files:
            with told(file.name):
                hashes[file.path] = hashes.get(file.path) or hash_file(file.path)
            inner = file.member.name if file.member else ""
            state.update(f"{hashes[file.path]}\0{inner}\0{file.split}\0{file.subject}\n".encode())
        return state.hexdigest()[:16]

    def _manifest(self, digest: str) -> dict[str, Any] | None:
        folder = self.folder / digest
        try:
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            whole = all((folder / entry["file"]).stat().st_size == entry["bytes"] for entry in manifest["files"])
            return manifest if whole and (manifest["digest"], manifest["form"]) == (digest, self._form) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _write(self, files: Sequence[RowFile], digest: str, source: str) -> dict[str, Any]:
        """Write all rows into a folder that takes its name when it is whole."""
        partial = self.folder / f"partial-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            rows = self._write_rows(files, partial)
            counts = self._check(rows, source)
            entries = [
                {"subject": subject, "split": split, "file": file, "rows": rows[subject, split]}
                | {"bytes": (partial / file).stat().st_size}
                for subject, split in sorted(rows)
                for file in [f"{subject}.{split}.jsonl"]
            ]
            manifest = {"digest": digest, "form": self._form, "source": source, "counts": counts, "files": entries}
            write_atomically(partial / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
            if self._manifest(digest) is None:
                shutil.rmtree(self.folder / digest, ignore_errors=True)  # one that is not whole
            try:
                partial.rename(self.folder / digest)
            except OSError:
                if self._manifest(digest) is None:  # else another process was first
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return manifest

    def _write_rows(self, files: Sequence[RowFile], folder: Path) -> dict[tuple[str, str], int]:
        rows: dict[tuple[str, str], int] = {}
        with ExitStack() as stack:
            opened: dict[tuple[str, str], Any] = {}
            for file in files:
                for subject, row in read_file(file, self.data, self.subjects):
                    key = subject, file.split
                    if key not in opened:
                        path = folder / f"{subject}.{file.split}.jsonl"
                        opened[key] = stack.enter_context(path.open("wb"))
                    try:
                        line = json.dumps(row, ensure_ascii=False).encode("utf-8")
                    except UnicodeEncodeError:
                        raise BuddyError(f"{file.name}: a row of {subject} holds half a character; mend it") from None
                    opened[key].write(line + b"\n")
                    rows[key] = rows.get(key, 0) + 1
        return rows

    def _check(self, rows: Mapping[tuple[str, str], int], source: str) -> dict[str, int]:
        """See that the rows are as many as the benchmark has, in each of its subjects."""
        counts: dict[str, int] = {}
        for split, wanted in self.data.splits.items():
            found = [subject for subject in self.subjects if (subject, split) in rows]
            counts[split] = sum(rows[subject, split] for subject in found)
            if wanted.optional and not counts[split]:
                del counts[split]
                continue
            if lost := [subject for subject in self.subjects if subject not in found]:
                raise BuddyError(
                    f"{self.name}: {source}: no rows of {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''} in "
                    f"{split}: {len(found)} of {len(self.subjects)} subjects; fetch it again"
                )
            if counts[split] not in wanted.rows:
                right = " or ".join(f"{count:,}" for count in wanted.rows)
                raise BuddyError(
                    f"{self.name}: {source}: {counts[split]:,} rows in {split} where there are {right}; fetch it again"
                )
        return counts
