"""The sequence parameter sets of an H.264 header, which save opening a file the probing decode."""

from __future__ import annotations

from dataclasses import dataclass

# Profiles of H.264 whose parameter sets start with chroma format and bit depths.
_HIGH = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_OWN_SHAPE = 255  # of aspect_ratio_idc: two numbers follow


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """An H.264 sequence parameter set (7.3.2.1.1), as far as it matters here.

    Attributes:
        order: ``pic_order_cnt_type``; 2 if frames are shown in decoding order (8.2.1.3).
        colours: whether it contains the range or the space of colours.
    """

    order: int
    colours: bool

    @property
    def as_decoded(self) -> bool:
        """Whether frames are shown in decoding order."""
        return self.order == 2


def parameter_sets(extradata: bytes) -> list[ParameterSet] | None:
    """Return the sets of an ``avcC`` box, ``None`` if there is none or one cannot be parsed.

    Example:
        >>> parameter_sets(b"") is None
        True
    """
    count = extradata[5] & 31 if len(extradata) > 6 and extradata[0] == 1 else 0
    at, found = 6, []
    for _ in range(count):
        length = int.from_bytes(extradata[at : at + 2], "big")
        unit = extradata[at + 2 : at + 2 + length]
        try:
            found.append(_parameter_set(unit))
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
    if bits.take(1) and bits.take(8) == _OWN_SHAPE:
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    return ParameterSet(order, colours=bool(bits.take(1)))  # video_signal_type_present_flag


class _Bits:
    """Reads numbers off the front of some bytes; past the end raises :class:`IndexError`."""

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

    def skip(self, codes: int) -> None:
        """Skip Exp-Golomb codes."""
        for _ in range(codes):
            self.number()
