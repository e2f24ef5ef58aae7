"""Archives read in place: .zip, .tar, and .tar in .gz or .zst. Nothing is ever extracted.

A member of a .zip or of a plain .tar is read alone, from its place in the archive. A compressed .tar gives its members
one after the other, in one go. What no honest archive of text holds is refused: names that lead out of it, links that
do, devices, encrypted members, members that overlap, and more bytes stated than there can be.
"""

from __future__ import annotations

import posixpath
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from buddygpt.data.files.names import format_of, is_archive, split_name
from buddygpt.data.files.streams import CHUNK, LIMIT, Checked, Forward, Slice, told, unpacked
from buddygpt.recipe.errors import BuddyError

MAX_RATIO, RATIO_FROM = 200, 100_000_000
"""Bytes stated per byte in the archive that are believed, where more than RATIO_FROM are stated. Text reaches 30."""
_ZIP_HEADER = struct.Struct("<4s22xHH")
"""A zip member's own header: signature, and the lengths of its name and of the extra field that follow."""
_TAR_HEADER, _TAR_BLOCK = 1 << 20, 512
_LINK_BYTES = 4096


@dataclass(frozen=True)
class Member:
    """A file of a known kind in an archive.

    Args:
        name: in the archive, with slashes.
        size: bytes, unpacked.
        packed: bytes in a .zip; else as `size`.
        offset: where its header (.zip) or its bytes (.tar) begin; None where the archive must be read in one go.
        check: CRC-32; of a .zip's member only.
        deflated: in a .zip.
    """

    name: str
    size: int
    packed: int
    offset: int | None = None
    check: int | None = None
    deflated: bool = False


@dataclass
class Contents:
    """What an archive holds; hidden files are left out.

    Args:
        members: files of known kinds, in the archive's order.
        others: files of other kinds, which are passed over; archives are among them.
        links: to places within the archive, which are passed over.
    """

    members: list[Member] = field(default_factory=list)
    others: int = 0
    links: int = 0


def list_members(path: Path, name: str) -> Contents:
    """Look through a whole archive and refuse what is wrong with it; a compressed .tar is unpacked once for that.

    Args:
        path: the archive.
        name: what messages call it; its suffix tells the kind.

    Raises:
        BuddyError: damaged, or made to do harm; names the member.
    """
    if split_name(name)[0] == ".zip":
        return _list_zip(path, name)
    ledger = _Ledger(name)
    for _ in _walk_tar(path, ledger):
        pass
    return ledger.contents


@contextmanager
def open_member(path: Path, name: str, member: Member) -> Iterator[BinaryIO]:
    """The bytes of a member that can be read alone.

    Args:
        path: the archive.
        name: what messages call the member.
        member: as `list_members` gave it; its `offset` is known.
    """
    start = member.offset
    assert start is not None
    if member.check is not None:
        with Slice(path, name, start, start + _ZIP_HEADER.size) as header:
            signature, *lengths = _ZIP_HEADER.unpack(header.read(_ZIP_HEADER.size))
        if signature != b"PK\3\4":
            raise EOFError("it is not where the archive's list says")
        start += _ZIP_HEADER.size + sum(lengths)
    with Slice(path, name, start, start + member.packed) as file:
        seeks = format_of(name) == ".parquet"  # which has checksums of its own, or none
        yield file if member.check is None or seeks else Checked(file, member.size, member.check, member.deflated)


def stream_members(path: Path, name: str) -> Iterator[tuple[Member, BinaryIO]]:
    """The members of a compressed .tar, each with its bytes, which last until the next is asked for.

    Raises:
        BuddyError: as `list_members`, but only when the member comes.
    """
    return _walk_tar(path, _Ledger(name))


class _Ledger:
    """Takes down what an archive holds, and refuses what it should not.

    Args:
        name: what messages call the archive.
    """

    def __init__(self, name: str):
        self.name, self.contents = name, Contents()
        self._seen: set[str] = set()

    def refuse(self, member: str, why: str) -> BuddyError:
        """The fault of a member."""
        return BuddyError(f"{self.name}: {member}: {why}; nothing of the archive is read")

    def clean_name(self, raw: bytes) -> str:
        """A member's name, with slashes; names in GB18030 are known as such."""
        name = _decode(raw).replace("\\", "/")
        if not name.isprintable():
            raise self.refuse(ascii(name)[1:-1], "a name with control characters")
        if _leads_out(name):
            raise self.refuse(name, "leads out of the archive")
        return posixpath.normpath(name)

    def add_link(self, name: str, base: str, target: bytes) -> None:
        """A link, to a target relative to a folder in the archive."""
        text = _decode(target).replace("\\", "/")
        if text.startswith("/") or _leads_out(posixpath.normpath(posixpath.join(base, text))):
            raise self.refuse(name, f"a link that leads out of the archive, to {ascii(text)[1:-1]}")
        self.contents.links += 1

    def add_file(self, member: Member) -> bool:
        """A file; whether it is one to read."""
        parts = member.name.split("/")
        if any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX":
            return False
        form = format_of(member.name)
        if form is None or is_archive(member.name):
            self.contents.others += 1
            return False
        if form == ".parquet" and (member.offset is None or member.deflated):
            raise self.refuse(member.name, "a .parquet that is compressed again cannot be read in place; unpack it")
        if member.name in self._seen:
            raise self.refuse(member.name, "there twice, and which is meant cannot be told")
        self._seen.add(member.name)
        self.contents.members.append(member)
        return True

    def check_ratio(self, member: str, stated: int, packed: int) -> None:
        """See that bytes stated may be true."""
        if stated > RATIO_FROM and stated > MAX_RATIO * packed:
            raise self.refuse(
                member, f"states {stated:,} bytes in {packed:,}, as no text does; unpack it yourself if you trust it"
            )


def _list_zip(path: Path, name: str) -> Contents:
    ledger = _Ledger(name)
    spans, stated = [], 0
    with _told(name), Slice(path, name) as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            flagged = info.flag_bits & 0x800
            member = ledger.clean_name(info.orig_filename.encode("utf-8" if flagged else "cp437"))
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise ledger.refuse(member, "a device or pipe")
            if info.flag_bits & 0x1:
                raise ledger.refuse(member, "encrypted; unpack it yourself")
            ledger.check_ratio(member, info.file_size, info.compress_size)
            stated += info.file_size
            length = _ZIP_HEADER.size + len(info.orig_filename) + info.compress_size
            spans.append((info.header_offset, info.header_offset + length, member))
            if kind == stat.S_IFLNK:
                ledger.add_link(member, posixpath.dirname(member), archive.open(info).read(_LINK_BYTES))
            elif not info.is_dir():
                deflated = info.compress_type == zipfile.ZIP_DEFLATED
                found = Member(member, info.file_size, info.compress_size, info.header_offset, info.CRC, deflated)
                if ledger.add_file(found) and not (deflated or info.compress_type == zipfile.ZIP_STORED):
                    raise ledger.refuse(member, f"compressed by method {info.compress_type}; pack it again by deflate")
        ledger.check_ratio("its members", stated, file.stop)
        spans.sort()
        for (_, stop, _), (start, _, member) in zip(spans, [*spans[1:], (file.stop, 0, "its list")], strict=True):
            if stop > start:
                raise ledger.refuse(member, "overlaps another member")
    return ledger.contents


def _walk_tar(path: Path, ledger: _Ledger) -> Iterator[tuple[Member, BinaryIO]]:
    packed = bool(split_name(ledger.name)[1])
    stated = 0
    with _told(ledger.name), Slice(path, ledger.name) as raw, unpacked(raw, ledger.name) as stream:
        blocks = _Blocks(stream if packed else raw)  # of which the members need not be read
        with tarfile.TarFile(fileobj=blocks, encoding="utf-8") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # else all headers stay in memory
                member = ledger.clean_name(info.name.encode("utf-8", "surrogateescape"))
                stated += info.size
                if info.size < 0 or (not packed and info.isreg() and info.offset_data + info.size > raw.stop):
                    raise ledger.refuse(member, "states more bytes than the archive holds")
                ledger.check_ratio("its members", stated, raw.stop)
                if info.issym() or info.islnk():
                    base = posixpath.dirname(member) if info.issym() else ""
                    ledger.add_link(member, base, info.linkname.encode("utf-8", "surrogateescape"))
                elif info.isdev():
                    raise ledger.refuse(member, "a device or pipe")
                elif not info.isdir():
                    found = Member(member, info.size, info.size, None if packed else info.offset_data)
                    if not ledger.add_file(found):
                        continue
                    if info.issparse():
                        raise ledger.refuse(member, "a sparse file; pack it again without holes")
                    yield found, Forward(blocks, info.size)
        if blocks.last.strip(b"\0") or len(blocks.last) < _TAR_BLOCK:  # which tarfile takes for the end in silence
            raise EOFError("no end, or no header where one should be")
        rest = 0
        for block in iter(partial(blocks.read, CHUNK), b""):
            rest += len(block)
            if block.strip(b"\0"):
                raise BuddyError(f"{ledger.name}: more follows after the archive's end; if two are joined, part them")
            if rest > LIMIT:
                break


class _Blocks(Forward):
    """A .tar's bytes for tarfile, which would take a header of any length into memory."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _TAR_HEADER:
            raise EOFError(f"a header of {size:,} bytes")
        return super().read(size)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What Python's readers of archives say of damage, in one line."""
    faults = (tarfile.TarError, zipfile.BadZipFile, struct.error, ValueError, OverflowError, RuntimeError)
    try:
        with told(name):
            yield
    except faults as error:
        what = str(error).split("\n", 1)[0]
        raise BuddyError(f"{name}: no whole archive ({what}); fetch it again") from None


def _leads_out(name: str) -> bool:
    """Whether a name, with slashes, is absolute, has a drive letter, or goes up."""
    return name.startswith("/") or bool(re.match("[A-Za-z]:", name)) or ".." in name.split("/")


def _decode(raw: bytes) -> str:
    """A name, which archives made in China often hold in GB18030 without saying so."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("utf-8", "backslashreplace")
