"""What the bytes of codec headers and packets say that containers omit or get wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
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

# Profiles of H.264 whose parameter sets start with chroma format and bit depths.
_HIGH = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))

# Codecs whose keyframes all stand for themselves.
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
    """Return whether decoding from this keyframe equals decoding from the first packet."""
    if codec == "h264":
        return starts_anew(packet, extradata) or _recovers(packet, extradata)
    if codec in _NEEDED:
        return all(mark in packet or mark in extradata for mark in _NEEDED[codec])
    return codec in _SELF_CONTAINED


def may_skip_unreferenced(codec: str, extradata: bytes) -> bool:
    """Return whether skipping frames to which no other refers leaves the rest unchanged.

    Not in AV1. A layered HEVC stream marks frames to which higher layers do refer, so its header
    must promise a single layer.
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
    """Checks the NAL units of H.264 and HEVC packets that are stored with their lengths.

    If units do not follow each other to the end of a packet, it is damaged and gives no frame. One
    with parameter sets that are not in the header changes the meaning of all later packets.

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
    """Return whether an H.264 packet is an IDR picture, which resets the decoder."""
    kinds = (kind for kind, _ in _h264_units(packet, extradata) if kind in (_SLICE, _IDR))
    return next(kinds, None) == _IDR


def _recovers(packet: bytes, extradata: bytes) -> bool:
    """Whether an H.264 packet promises, before its picture, that decoding may start with it."""
    for kind, unit in _h264_units(packet, extradata):
        if kind == _SEI and _recovers_exactly(unit):
            return True
        if kind == _SLICE:
            return False
    return False


def _h264_units(packet: bytes, extradata: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of each NAL unit, length-prefixed or separated by start codes."""
    width, at = length_prefix("h264", extradata), 0
    while width and at + width <= len(packet):
        begin, at = at + width, at + width + int.from_bytes(packet[at : at + width], "big")
        yield packet[begin] & 0x1F if begin < min(at, len(packet)) else 0, packet[begin:at]
    at = -1 if width else packet.find(_START)
    while at >= 0:
        begin, at = at + 3, packet.find(_START, at + 3)
        unit = packet[begin : at if at >= 0 else None]
        yield unit[0] & 0x1F if unit else 0, unit


def _recovers_exactly(unit: bytes) -> bool:
    """Whether an SEI unit promises that decoding from here is exact from this very picture on.

    Only a recovery point of zero frames with ``exact_match_flag`` does (H.264, D.2.8); after other
    recovery points the picture builds up gradually.
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


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """An H.264 sequence parameter set (7.3.2.1.1), as far as it matters here."""

    order: int  # pic_order_cnt_type
    colours: bool  # whether it contains the range or the space of colours

    @property
    def as_decoded(self) -> bool:
        """Whether frames are shown in decoding order (8.2.1.3)."""
        return self.order == 2


def parameter_sets(extradata: bytes) -> list[ParameterSet] | None:
    """Return the sets of an ``avcC`` box, ``None`` if there is none or one cannot be parsed."""
    count = extradata[5] & 31 if len(extradata) > 6 and extradata[0] == 1 else 0
    at, found = 6, []
    for _ in range(count):
        length = int.from_bytes(extradata[at : at + 2], "big")
        try:
            found.append(_parameter_set(extradata[at + 2 : at + 2 + length]))
        except (IndexError, ValueError):
            return None
        at += 2 + length
    return found or None


def _parameter_set(unit: bytes) -> ParameterSet:
    data = unit.replace(b"\x00\x00\x03", b"\x00\x00")
    bits = _Bits(data[4:])
    bits.skip(1)  # seq_parameter_set_id
    if data[1] in _HIGH:
        bits.take(bits.number() == 3)  # chroma_format_idc; separate_colour_plane_flag
        bits.skip(2)  # bit depths
        bits.take(1)
        if bits.take(1):  # scaling matrices, which no encoder in wide use writes
            raise ValueError
    bits.skip(1)  # log2_max_frame_num_minus4
    order = bits.number()
    if order == 0:
        bits.skip(1)  # log2_max_pic_order_cnt_lsb_minus4
    elif order == 1:
        bits.take(1)
        bits.skip(2)
        bits.skip(bits.number())
    bits.skip(1)  # max_num_ref_frames
    bits.take(1)
    bits.skip(2)  # width, height
    if not bits.take(1):  # frame_mbs_only_flag
        bits.take(1)
    bits.take(1)
    if bits.take(1):  # frame_cropping_flag
        bits.skip(4)
    if not bits.take(1):  # vui_parameters_present_flag
        return ParameterSet(order, colours=False)
    if bits.take(1) and bits.take(8) == 255:  # aspect_ratio_idc: two numbers follow
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    return ParameterSet(order, colours=bool(bits.take(1)))  # video_signal_type_present_flag


class _Bits:
    """Reads bits and Exp-Golomb codes (9.1); past the end raises :class:`IndexError`."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data[:64])
        self._at = 0

    def take(self, count: int) -> int:
        if self._at + count > len(self._bits):
            raise IndexError
        taken = self._bits[self._at : self._at + count]
        self._at += count
        return int(taken, 2) if taken else 0

    def number(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip(self, codes: int) -> None:
        for _ in range(codes):
            self.number()
