"""Files as streams of bytes, plain or unpacked on the way, with every fault told in one line."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from buddygpt.data.files.names import split_name
from buddygpt.recipe.errors import BuddyError

CHUNK = 1 << 18
LIMIT = 64 << 20
"""Bytes of one line, one value of an array or one text file, above which it is refused: memory stays bounded."""
LIMIT_WORDS = "64 MB"


@contextmanager
def told(name: str) -> Iterator[None]:
    """Faults of decompression and of the file system, in one line with the file's name."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BuddyError(f"{name}: cut short or damaged ({error}); fetch it again") from None
    except OSError as error:
        if error.errno is None:  # Arrow's own, of a .zst or a .parquet
            if "too much memory" in str(error):
                raise BuddyError(
                    f"{name}: packed with a window above 128 MB; unpack it with `zstd -d --long=31` and give that"
                ) from None
            raise BuddyError(f"{name}: cut short or damaged ({str(error).splitlines()[0]}); fetch it again") from None
        raise BuddyError(f"{name}: cannot be read: {error.strerror or error}") from None


def check_regular(path: Path, name: str) -> None:
    """See that a path is a file with bytes in it, not a folder, and not a pipe, which would wait for ever.

    Raises:
        BuddyError: it is none.
        OSError: there is nothing, or it may not be looked at.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise BuddyError(f"{name}: {kind}, not a file; give a file")


class Slice(io.RawIOBase):
    """The bytes [start, stop) of a regular file, which may not become shorter while it is read.

    Args:
        path: the file.
        name: what messages call it.
        start, stop: bytes; the whole file as it is now where not given.
    """

    def __init__(self, path: Path, name: str, start: int = 0, stop: int | None = None):
        check_regular(path, name)
        self._file: Any = path.open("rb", buffering=0)
        size = self._file.seek(0, io.SEEK_END)
        self.start, self.stop = start, size if stop is None else stop
        self._name, self._at = name, self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self.start, io.SEEK_CUR: self._at, io.SEEK_END: self.stop}[whence]
        self._at = self._file.seek(min(max(base + offset, self.start), self.stop))
        return self._at - self.start

    def tell(self) -> int:
        return self._at - self.start

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.stop - self._at)
        size = self._file.readinto(memoryview(buffer)[:wanted])
        if wanted and not size:
            raise BuddyError(f"{self._name}: became shorter while it was read; start again when nothing writes to it")
        self._at += size
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


class Forward(io.RawIOBase):
    """A stream that is only read onwards, as the bytes of an archive are; it may be sought forwards.

    Args:
        file: the stream.
        size: bytes of it that there must be; all that come where not given.
    """

    def __init__(self, file: BinaryIO, size: int | None = None):
        self._file, self._size, self._at = file, size, 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer) if self._size is None else min(len(buffer), self._size - self._at)
        self.last = self._file.read(wanted) if wanted else b""
        if wanted and self._size is not None and not self.last:
            raise EOFError("it holds less than it states")
        buffer[: len(self.last)] = self.last
        self._at += len(self.last)
        return len(self.last)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._at:
            raise EOFError("it leads backwards")
        if isinstance(self._file, Slice):
            self._file.seek(offset - self._at, io.SEEK_CUR)
            self._at = offset
        while self._at < offset and self.read(min(offset - self._at, CHUNK)):
            pass
        return self._at


class Checked(io.RawIOBase):
    """The bytes of a .zip's member, inflated where they are deflated, which must be as many as stated.

    Args:
        file: the member's bytes in the archive.
        size: bytes stated.
        check: their CRC-32.
        deflated: by zlib, without a header.
    """

    def __init__(self, file: BinaryIO, size: int, check: int, deflated: bool):
        self._file, self._left, self._check = file, size, check
        self._inflater: Any = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._sum = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer)) if len(buffer) else b""
        self._left -= len(data)
        self._sum = zlib.crc32(data, self._sum)
        if self._left < 0:
            raise EOFError("it holds more than it states")
        if not data and len(buffer) and (self._left or self._sum != self._check):
            raise EOFError("it holds less than it states" if self._left else "its checksum does not fit")
        buffer[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        if self._inflater is None:
            return self._file.read(size)
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(CHUNK)
            data = self._inflater.decompress(packed, size)
            if data or not packed:
                return data
        return b""


@contextmanager
def unpacked(raw: io.RawIOBase, name: str) -> Iterator[io.BufferedReader]:
    """A buffered stream of what a file holds, decompressed as its name says.

    Memory stays bounded whatever the ratio: no more is unpacked than a `read` asks for, by a window of 128 MB.
    """
    compression = split_name(name)[1]
    stream: Any = raw
    if compression == ".gz":
        stream = gzip.GzipFile(fileobj=raw)
    elif compression == ".zst":
        import pyarrow as pa

        # unlike zstandard's own reader, Arrow's notices a file that was cut short
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    with io.BufferedReader(stream, CHUNK) as file:
        yield file
