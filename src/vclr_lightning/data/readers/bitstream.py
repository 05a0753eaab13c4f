"""What codec headers and packets contain that containers omit or get wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

_START = b"\x00\x00\x01"
_SLICE, _IDR, _SEI = 1, 5, 6  # types of H.264's NAL units
_RECOVERY_POINT = 6  # type of a message in an SEI unit
# The length before a NAL unit, and the unit's first byte.
_UNITS = {1: struct.Struct(">BB"), 2: struct.Struct(">HB"), 4: struct.Struct(">IB")}
# First bytes of parameter sets.
_SETS = {
    "h264": frozenset(byte for byte in range(128) if byte & 31 in (7, 8)),
    "hevc": frozenset(byte for byte in range(128) if byte >> 1 in (32, 33, 34)),
}

# Codecs whose every keyframe stands for itself.
_SELF_CONTAINED = frozenset(
    ("av1", "dnxhd", "ffv1", "flv1", "h263", "hevc", "prores", "rawvideo", "vp8", "vp9")
)

# What a keyframe must carry so that decoding from it equals decoding from the first packet: the
# tables of MJPEG, the sequence header of MPEG-1 and 2. MPEG-4's user data name the encoder, by
# which the decoder chooses its inverse transform.
_NEEDED: dict[str, tuple[bytes, ...]] = {
    "mjpeg": (b"\xff\xdb", b"\xff\xc4"),
    "mpeg1video": (_START + b"\xb3",),
    "mpeg2video": (_START + b"\xb3",),
    "mpeg4": (_START + b"\xb2",),
}


def may_start_within(codec: str) -> bool:
    """Return whether a stream of ``codec`` may be entered at a keyframe other than its first."""
    return codec == "h264" or codec in _SELF_CONTAINED or codec in _NEEDED


def is_clean_entry(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Return whether decoding from this keyframe gives what decoding from the first packet gives.

    Args:
        codec: FFmpeg's name of the codec.
        packet: the keyframe's bytes.
        extradata: the stream's header, empty where there is none.
    """
    if codec == "h264":
        return starts_anew(packet, extradata) or _recovers(packet, extradata)
    if codec in _NEEDED:
        return all(mark in packet or mark in extradata for mark in _NEEDED[codec])
    return codec in _SELF_CONTAINED


def may_skip_unreferenced(codec: str, extradata: bytes) -> bool:
    """Return whether frames that no other refers to may be left out without changing the rest.

    AV1 loses others with them. A layered HEVC stream marks frames that higher layers do refer to,
    so only one whose header promises a single layer qualifies.
    """
    if codec == "hevc":
        return len(extradata) > 21 and extradata[0] == 1 and (extradata[21] >> 3) & 7 == 1
    return codec in ("h264", "mpeg4", "mpeg1video", "mpeg2video")


def length_prefix(codec: str, extradata: bytes) -> int:
    """Return the size of the length field before each NAL unit of H.264 and HEVC; 0 for none."""
    if extradata[:1] != b"\x01":
        return 0
    at = {"h264": 4, "hevc": 21}.get(codec, len(extradata))
    return (extradata[at] & 3) + 1 if at < len(extradata) else 0


class UnitCheck:
    """Looks over the NAL units of H.264 and HEVC packets that are stored with their lengths.

    Where units do not follow each other to the end of a packet, it is damaged, and no frame comes
    of it. One with parameter sets that are not in the header changes what later packets mean, so
    none of these can be decoded without it.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: the stream's header.

    Example:
        >>> check = UnitCheck("h264", b"\\1abc\\3")
        >>> check(b"\\0\\0\\0\\2ab\\0\\0\\0\\1c", 11), check(b"\\0\\0\\1\\2ab\\0\\0\\0\\1c", 11)
        (True, False)
        >>> check(b"\\0\\0\\0\\2gz", 6)
        False
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._width = length_prefix(codec, extradata)
        self._sets = _SETS.get(codec, frozenset())
        self._extradata = extradata

    def __call__(self, packet: av.Packet | bytes, size: int) -> bool:
        """Return whether a packet of ``size`` bytes is whole and changes no parameter set."""
        width, sets = self._width, self._sets
        if not width:
            return True
        unit_at, least = _UNITS[width].unpack_from, max(4, width + 1)
        at = 0
        while size - at >= least:
            length, kind = unit_at(packet, at)
            if length == 0:
                return False
            begin, at = at + width, at + width + length
            if kind in sets and bytes(memoryview(packet)[begin:at]) not in self._extradata:
                return False
        return 0 <= size - at < 4


def starts_anew(packet: bytes, extradata: bytes) -> bool:
    """Return whether an H.264 packet is an IDR picture, which makes the decoder forget the rest."""
    kinds = (unit[0] & 0x1F for unit in _h264_units(packet, extradata) if unit)
    return next((kind == _IDR for kind in kinds if kind in (_SLICE, _IDR)), False)


def _recovers(packet: bytes, extradata: bytes) -> bool:
    """Whether an H.264 packet promises, before its picture, that decoding may start with it."""
    for unit in _h264_units(packet, extradata):
        kind = unit[0] & 0x1F if unit else 0
        if kind == _SEI and _recovers_exactly(unit):
            return True
        if kind == _SLICE:
            return False
    return False


def _h264_units(packet: bytes, extradata: bytes) -> Iterator[bytes]:
    """Yield the NAL units of a packet, length-prefixed or separated by start codes."""
    if width := length_prefix("h264", extradata):
        at = 0
        while at + width <= len(packet):
            length = int.from_bytes(packet[at : at + width], "big")
            yield packet[at + width : at + width + length]
            at += width + length
        return
    at = packet.find(_START)
    while at >= 0:
        end = packet.find(_START, at + 3)
        yield packet[at + 3 : end if end >= 0 else None]
        at = end


def _recovers_exactly(unit: bytes) -> bool:
    """Whether an SEI unit promises that decoding from here is exact from this very picture on.

    Only a recovery point of zero frames with ``exact_match_flag`` does (H.264, D.2.8); a stream
    refreshed bit by bit has keyframes from which the picture only builds up.
    """
    data = unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")
    at = 0
    while at + 2 < len(data):
        numbers = []  # type and length of a message: 255 for each byte 0xFF, and the byte after
        for _ in range(2):
            begin = at
            while at < len(data) and data[at] == 0xFF:
                at += 1
            if at >= len(data):
                return False
            numbers.append(255 * (at - begin) + data[at])
            at += 1
        kind, length = numbers
        if kind == _RECOVERY_POINT and length:
            return data[at] >> 6 == 0b11  # ue(0), then the flag
        at += length
    return False
