"""Whether the header of an H.264 stream says in which order frames are shown."""

from __future__ import annotations

_HIGH = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_AS_DECODED = 2  # of pic_order_cnt_type


def shows_as_decoded(extradata: bytes) -> bool:
    """Return whether frames of an H.264 stream are surely shown in the order of decoding.

    That is so where ``pic_order_cnt_type`` is 2 (H.264, 8.2.1.3) in every parameter set of the
    header, an ``avcC`` box. ``False``: it is not, or the header does not tell.

    Example:
        >>> shows_as_decoded(b"")
        False
    """
    count = extradata[5] & 31 if len(extradata) > 6 and extradata[0] == 1 else 0
    at = 6
    for _ in range(count):
        length = int.from_bytes(extradata[at : at + 2], "big")
        unit = extradata[at + 2 : at + 2 + length]
        if not _order_type_is(unit, _AS_DECODED):
            return False
        at += 2 + length
    return count > 0


def _order_type_is(unit: bytes, wanted: int) -> bool:
    """Whether a sequence parameter set (H.264, 7.3.2.1.1) has this ``pic_order_cnt_type``."""
    if len(unit) < 5:
        return False
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
                return False
        bits.number()  # log2_max_frame_num_minus4
        return bits.number() == wanted
    except IndexError:
        return False


class _Bits:
    """Reads numbers off the front of some bytes; past the end is an :class:`IndexError`."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data[:32])
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
