"""What a container's bytes show where FFmpeg reports too little: promised size, encryption."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from vclr_lightning.core.foreign import HEAD, kind_of

ENCRYPTED = "encrypted: its frames cannot be decoded without the key"

_HEAD = 1 << 16  # bytes
_PAD = 128  # appended to a short file, so that each number can be read
_MOST = 1 << 26  # bytes of an MP4's index
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"free", b"skip", b"wide", b"pnot")
_LOCKED = (b"encv", b"drmi")  # kinds of video tracks: Common Encryption, FairPlay
_SEGMENT = b"\x18\x53\x80\x67"  # of Matroska
_ASF = b"\x30\x26\xb2\x75"
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # in ASF's header
_SIZE = b"\x00\x08filesize\x00"  # in an FLV's onMetaData
_TS = 188  # bytes of a packet of MPEG-TS


def promised_size(file: IO[bytes]) -> int | None:
    """Return the file's size in bytes by its own headers, ``None`` if they don't say."""
    file.seek(0)
    first = file.read(_HEAD) + bytes(_PAD)
    if first[4:8] in _BOXES:
        return max(end for _, _, end in _boxes(file))
    if first[:4] == b"RIFF":
        return 8 + int.from_bytes(first[4:8], "little")
    if first[:4] == b"\x1a\x45\xdf\xa3":
        return _segment_end(first)
    if first[:4] == _ASF and (at := first.find(_PROPERTIES)) > 0:
        size, flags = struct.unpack_from("<40xQ40xI", first, at)
        return None if flags & 1 else int(size)  # 1: a broadcast, whose size is not known
    if first[:3] == b"FLV" and (at := first.find(_SIZE)) > 0:
        (size,) = struct.unpack_from(">d", first, at + len(_SIZE))
        return int(size) if 0 < size < 1 << 53 else None
    return None


def is_encrypted(file: IO[bytes]) -> bool:
    """Return whether the index of an MP4 says that its video is encrypted."""
    file.seek(0)
    return file.read(8)[4:] in _BOXES and _is_locked(_index(file))


def _is_locked(index: bytes) -> bool:
    return b"sinf" in index and any(kind in index for kind in _LOCKED)  # tables hold any four bytes


def why_unreadable(file: IO[bytes]) -> str | None:
    """Return why FFmpeg cannot open a file, as far as its bytes show."""
    first = file.read(_HEAD)
    if not first:
        return "empty file"
    if first[4:8] in _BOXES:
        return _why_no_mp4(file)
    if kind := kind_of(first[:HEAD]):
        return f"no video format that can be read: it {kind}"
    packets = range(0, len(first) - _TS, _TS)
    if all(first[at] == 0x47 for at in packets) and any(first[at + 3] & 0xC0 for at in packets):
        return ENCRYPTED
    return None


def _why_no_mp4(file: IO[bytes]) -> str | None:
    boxes = {kind: end for kind, _, end in _boxes(file)}
    size = file.seek(0, 2)
    if b"moov" not in boxes:
        if b"meta" in boxes:
            return "a picture (HEIF or AVIF), no video"
        if b"moof" in boxes:
            return "a fragment of a streamed MP4 without its header (moov); join the two"
        return "truncated or unfinished: the index (moov) of the MP4 is missing"
    if boxes[b"moov"] > size:
        return "truncated: it ends within its index (moov)"
    index = _index(file)
    if _is_locked(index):
        return ENCRYPTED
    return None if b"vide" in index else "no video stream"


def _index(file: IO[bytes]) -> bytes:
    """Return the moov of an MP4, empty where there is none."""
    for kind, begin, end in _boxes(file):
        if kind == b"moov":
            file.seek(begin)
            return file.read(min(end - begin, _MOST))
    return b""


def _boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and end of each box of an MP4; the last may promise too much."""
    whole = file.seek(0, 2)
    at = file.seek(0)
    while len(header := file.read(16)) >= 8:
        size, kind = struct.unpack_from(">I4s", header)
        if size == 1:
            size = int.from_bytes(header[8:])
        size = size or whole - at
        if size < 8:
            return
        yield kind, at, at + size
        at = file.seek(at + size)


def _segment_end(first: bytes) -> int | None:
    """Return where the segment of a Matroska file ends, ``None`` where a live one does not say."""
    size, at = _number(first, 4)
    at += size
    if first[at : at + 4] != _SEGMENT:
        return None
    size, begin = _number(first, at + 4)
    return None if size + 1 == 1 << 7 * (begin - at - 4) else begin + size


def _number(first: bytes, at: int) -> tuple[int, int]:
    """Return the number of variable length at a place, and the place behind it."""
    length = 9 - first[at].bit_length()
    return int.from_bytes(first[at : at + length]) & ((1 << 7 * length) - 1), at + length
