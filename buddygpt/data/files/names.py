"""What a file's name promises: its format, its compression, and how a row in it is called."""

from __future__ import annotations

from pathlib import PurePosixPath

FORMATS = (".jsonl", ".json", ".parquet", ".txt", ".md", ".csv", ".tsv")
ARCHIVES = (".zip", ".tar")
COMPRESSIONS = (".gz", ".zst")
KNOWN = (
    f"{', '.join(FORMATS)}, all but .parquet also with {' or '.join(COMPRESSIONS)}, "
    "and .zip, .tar, .tar.gz, .tgz, .tar.zst that hold them"
)
"""The formats, in words."""
_SHORT = {".tgz": (".tar", ".gz"), ".tzst": (".tar", ".zst")}
_UNPACKED_ONLY = (".parquet", ".zip")


def split_name(name: str) -> tuple[str, str]:
    """Format and compression as the suffixes say, known or not: `.jsonl` and `.gz` of `a.jsonl.gz`, `""` for none."""
    path = PurePosixPath(name.replace("\\", "/").lower())
    if path.suffix in _SHORT:
        return _SHORT[path.suffix]
    if path.suffix in COMPRESSIONS:
        return PurePosixPath(path.stem).suffix, path.suffix
    return path.suffix, ""


def format_of(name: str) -> str | None:
    """The format that a file's name promises, `.jsonl` for `a.jsonl.gz`; None for any other name."""
    form, compression = split_name(name)
    return form if form in FORMATS + ARCHIVES and not (compression and form in _UNPACKED_ONLY) else None


def is_archive(name: str) -> bool:
    """Whether the file holds others."""
    return format_of(name) in ARCHIVES


def is_whole_document(name: str) -> bool:
    """Whether the file is one document, as .txt and .md are."""
    return format_of(name) in (".txt", ".md")


def place(name: str, row: int) -> str:
    """Where a row stands, for a reader's eyes: `a.jsonl:3`, `b.parquet: row 3`, `c.txt`."""
    if is_whole_document(name):
        return name
    return f"{name}:{row}" if format_of(name) in (".jsonl", ".csv", ".tsv") else f"{name}: row {row}"
