"""What packets' bytes tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.data.readers import bitstream

AVCC = b"\x01\x4d\x40\x15\xff"  # four-byte lengths
IDR, SLICE, SEI, AUD = b"\x65\x88", b"\x41\x9a", b"\x06", b"\x09\x10"
EXACT_RECOVERY = SEI + b"\x06\x01\xc4\x80"  # recovery_frame_cnt 0, exact_match_flag 1
LATE_RECOVERY = SEI + b"\x06\x01\x2c\x80"
OTHER_MESSAGE = SEI + b"\x05\x02\xab\xcd\x80"


def _prefixed(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def _separated(*units: bytes) -> bytes:
    return b"".join(b"\x00\x00\x01" + unit for unit in units)


@pytest.mark.parametrize(("pack", "header"), [(_prefixed, AVCC), (_separated, b"")])
@pytest.mark.parametrize(
    ("units", "clean"),
    [
        ((IDR,), True),
        ((AUD, OTHER_MESSAGE, IDR, IDR), True),
        ((SLICE,), False),
        ((EXACT_RECOVERY, SLICE), True),
        ((SEI + b"\x05\x01\xab" + EXACT_RECOVERY[1:], SLICE), True),
        ((LATE_RECOVERY, SLICE), False),
        ((OTHER_MESSAGE, SLICE), False),
        ((SLICE, EXACT_RECOVERY), False),
        ((AUD,), False),
        ((SEI + b"\xff\xff",), False),
        ((), False),
    ],
)
def test_h264_entries(
    pack: Callable[..., bytes], header: bytes, units: tuple[bytes, ...], clean: bool
) -> None:
    assert bitstream.is_clean_entry("h264", pack(*units), header) is clean


def test_only_an_idr_picture_starts_anew() -> None:
    assert bitstream.starts_anew(_prefixed(AUD, IDR), AVCC)
    assert not bitstream.starts_anew(_prefixed(EXACT_RECOVERY, SLICE), AVCC)
    assert not bitstream.starts_anew(b"", AVCC)


@pytest.mark.parametrize(
    ("codec", "packet", "header", "clean"),
    [
        ("hevc", b"", b"", True),
        ("mpeg2video", b"\x00\x00\x01\xb3abc", b"", True),
        ("mpeg2video", b"\x00\x00\x01\xb8abc", b"", False),
        ("mpeg4", b"\x00\x00\x01\xb6abc", b"\x00\x00\x01\xb2Lavc", True),
        ("mpeg4", b"\x00\x00\x01\xb6abc", b"", False),
        ("mjpeg", b"\xff\xd8\xff\xdb\xff\xc4", b"", True),
        ("mjpeg", b"\xff\xd8\xff\xdb", b"", False),
        ("theora", b"", b"", False),
    ],
)
def test_entries_of_other_codecs(codec: str, packet: bytes, header: bytes, clean: bool) -> None:
    assert bitstream.is_clean_entry(codec, packet, header) is clean


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_nal_units_fill_a_packet(units: list[bytes]) -> None:
    packet = _prefixed(*units)
    header = b"\x01abc\x03" + b"".join(units)  # which holds all parameter sets there may be
    fits = bitstream.UnitCheck("h264", header)
    assert fits(packet, len(packet))
    assert not fits(packet, len(packet) - 1)


def test_parameter_sets_are_those_of_the_header() -> None:
    """Others change what later packets mean, so none of these can be decoded alone."""
    for codec, header, first in (("h264", b"\x01abc\x03", b"\x67"), ("hevc", bytes(30), b"\x42")):
        packet = _prefixed(first + b"set", b"\x01picture")
        header = b"\x01" + header[1:21] + b"\x03" + header[22:] if codec == "hevc" else header
        assert not bitstream.UnitCheck(codec, header)(packet, len(packet))
        assert bitstream.UnitCheck(codec, header + first + b"set")(packet, len(packet))
        assert bitstream.UnitCheck(codec, b"")(packet, len(packet))  # nothing tells its units


def test_frames_are_not_skipped_where_others_may_refer_to_them() -> None:
    layered, single, unknown = (
        b"\x01" + bytes(20) + bytes([(layers << 3) | 3]) for layers in (3, 1, 0)
    )
    assert bitstream.may_skip_unreferenced("hevc", single)
    assert not bitstream.may_skip_unreferenced("hevc", layered)
    assert not bitstream.may_skip_unreferenced("hevc", unknown)
    assert not bitstream.may_skip_unreferenced("hevc", b"")
    assert not bitstream.may_skip_unreferenced("av1", b"")
    assert bitstream.may_skip_unreferenced("h264", b"")


def test_length_prefix_of_a_real_file(video: Callable[..., Path]) -> None:
    with av.open(str(video(".mp4", "libx264"))) as container:
        header = container.streams.video[0].codec_context.extradata
        packet = next(container.demux(video=0))
        assert bitstream.length_prefix("h264", header) == 4
        assert bitstream.UnitCheck("h264", header)(packet, packet.size)
        assert bitstream.starts_anew(bytes(packet), header)
    assert bitstream.length_prefix("h264", b"\x00\x00\x01") == 0
