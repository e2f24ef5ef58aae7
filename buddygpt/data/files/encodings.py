"""Text in another encoding than UTF-8, told with the likely one and the command that converts it."""

from __future__ import annotations

from buddygpt.recipe.errors import BuddyError

BOM = b"\xef\xbb\xbf"
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
"""Byte order marks, the longer first."""
_JUDGED = 1 << 16
"""Bytes by which an encoding is judged."""


def without_mark(head: bytes, name: str) -> bytes:
    """A file's first bytes without the mark of UTF-8.

    Args:
        head: at least four bytes where the file has as many.
        name: what messages call it.

    Raises:
        BuddyError: they begin as UTF-16 or UTF-32 does.
    """
    encoding = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "")
    if not encoding and head[:2].count(0) == 1:  # without a mark, but text begins with no NUL
        encoding = "UTF-16BE" if head[0] == 0 else "UTF-16LE"
    if encoding:
        raise BuddyError(f"{name}:1: {encoding}, not UTF-8; {_cure(encoding)}")
    return head.removeprefix(BOM)


def not_utf8(where: str, data: bytes, start: int) -> BuddyError:
    """The fault that bytes are not UTF-8.

    Args:
        where: file and line.
        data: the line, or more of the file.
        start: first byte in it that cannot be decoded.
    """
    first, last = data.rfind(b"\n", 0, start) + 1, data.find(b"\n", start)
    data, start = data[first : last if last > 0 else None], start - first
    around = data[max(start - _JUDGED // 2, 0) : start + _JUDGED // 2]
    foreign = sum(byte > 127 for byte in around)
    sound = sum(len(c.encode()) for c in around.decode("utf-8", "ignore") if c > "\x7f")
    if sound * 2 > foreign:
        return BuddyError(f"{where}: not UTF-8: a broken character; mend or remove the line")
    sample = data[start : start + _JUDGED]
    for encoding in ("GB18030", "BIG5"):
        wide = [c for c in _decode(sample, encoding) if c > "\x7f"]
        if wide and sum("\u3000" <= c <= "\u9fff" or "\uff00" <= c <= "\uffef" for c in wide) * 2 > len(wide):
            return BuddyError(f"{where}: not UTF-8, it reads as {encoding}; {_cure(encoding)}")
    return BuddyError(f"{where}: not UTF-8, nor GB18030; {_cure('ENCODING')} with the file's encoding")


def _decode(sample: bytes, encoding: str) -> str:
    """The sample's text, but for a character cut at its end; nothing where it is in another encoding."""
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError as error:
        return sample[: error.start].decode(encoding) if error.start > len(sample) - 4 else ""


def _cure(encoding: str) -> str:
    return f"convert the file: `iconv -f {encoding} -t UTF-8 OLD > NEW`"
