"""What the header of an H.264 stream says, so that nothing need be decoded to learn it."""

from __future__ import annotations

from dataclasses import dataclass

_HIGH = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_AS_DECODED = 2  # of pic_order_cnt_type
_OWN_SHAPE = 255  # of aspect_ratio_idc: two numbers follow


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """A sequence parameter set (H.264, 7.3.2.1.1), as far as it matters here.

    Attributes:
        order: ``pic_order_cnt_type``; 2 where frames are shown in the order of decoding (8.2.1.3).
        colours: whether it tells the range or the space of colours.
    """

    order: int
    colours: bool


def parameter_sets(extradata: bytes) -> list[ParameterSet] | None:
    """Return the sets of the header, an ``avcC`` box; ``None`` where it is not told by all.

    Example:
        >>> parameter_sets(b"") is None
        True
    """
    count = extradata[5] & 31 if len(extradata) > 6 and extradata[0] == 1 else 0
    at, found = 6, []
    for _ in range(count):
        length = int.from_bytes(extradata[at : at + 2], "big")
        one = _parse(extradata[at + 2 : at + 2 + length])
        if one is None:
            return None
        found.append(one)
        at += 2 + length
    return found or None


def shows_as_decoded(sets: list[ParameterSet]) -> bool:
    """Return whether frames are shown in the order of decoding, by every set."""
    return all(one.order == _AS_DECODED for one in sets)


def _parse(unit: bytes) -> ParameterSet | None:
    if len(unit) < 5:
        return None
    data = unit.replace(b"\x00\x00\x03", b"\x00\x00")
    bits = _Bits(data[4:])
    try:
        bits.number()  # seq_parameter_set_id
        if data[1] in _HIGH:
            if bits.number() == 3:  # chroma_format_idc
                bits.take(1)
            bits.number()  # bit_depth_luma_minus8
            bits.number()  # bit_depth_chroma_minus8
            bits.take(1)
            if bits.take(1):  # scaling matrices, of which no encoder in wide use writes any
                return None
        bits.number()  # log2_max_frame_num_minus4
        order = bits.number()
        return ParameterSet(order, _tells_colours(bits, order))
    except IndexError:
        return None


def _tells_colours(bits: _Bits, order: int) -> bool:
    """Read on from behind ``pic_order_cnt_type`` to ``video_signal_type_present_flag``."""
    if order == 0:
        bits.number()  # log2_max_pic_order_cnt_lsb_minus4
    elif order == 1:
        bits.take(1)
        bits.number()
        bits.number()
        for _ in range(bits.number()):
            bits.number()
    bits.number()  # max_num_ref_frames
    bits.take(1)
    bits.number()  # width
    bits.number()  # height
    if not bits.take(1):  # frame_mbs_only_flag
        bits.take(1)
    bits.take(1)
    if bits.take(1):  # frame_cropping_flag
        for _ in range(4):
            bits.number()
    if not bits.take(1):  # vui_parameters_present_flag
        return False
    if bits.take(1) and bits.take(8) == _OWN_SHAPE:
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    return bool(bits.take(1))


class _Bits:
    """Reads numbers off the front of some bytes; past the end is an :class:`IndexError`."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data[:64])
        self._at = 0

    def take(self, count: int) -> int:
        """Return the next ``count`` bits as a number, 0 for none."""
        if self._at + count > len(self._bits):
            raise IndexError
        taken = self._bits[self._at : self._at + count]
        self._at += count
        return int(taken, 2) if taken else 0

    def number(self) -> int:
        """Return the next Exp-Golomb code (H.264, 9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
