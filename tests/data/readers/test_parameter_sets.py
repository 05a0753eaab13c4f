"""What an H.264 header says of the order of frames, and what opening makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.data.readers import PyAVReader, opening
from vclr_lightning.data.readers.bitstream import (
    ParameterSet,
    parameter_sets,
)

Make = Callable[..., Path]
HAS_INDEX = hasattr(av.stream.Stream, "index_entries")
X264 = {"threads": "1", "g": "12"}
IN_ORDER = X264 | {"bf": "0"}
NO_COLOURS = {"movflags": "-write_colr"}


def _header(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.extradata or b""


def _units(header: bytes) -> bytes:
    """The parameter sets of an ``avcC`` box with one of each kind, as a packet holds them."""
    length = int.from_bytes(header[6:8], "big")
    units = header[8 : 8 + length], header[8 + length + 3 :]
    size = int.from_bytes(header[8 + length + 1 : 8 + length + 3], "big")
    return b"".join(len(u).to_bytes(4, "big") + u for u in (units[0], units[1][:size]))


def _golomb(number: int) -> str:
    digits = f"{number + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _parameter_set(
    *,
    profile: int,
    identity: int = 0,
    chroma: int = 1,
    depth: int = 0,
    scaling: bool = False,
    frames: int = 0,
    order: int = 2,
    crop: bool = False,
    fields: bool = False,
    shape: int | None = None,
    colours: bool | None = None,
) -> bytes:
    """One of H.264, bit by bit as 7.3.2.1.1 lists them; without colours (``None``) without VUI."""
    bits = _golomb(identity)
    if profile >= 100:
        bits += _golomb(chroma) + ("0" if chroma == 3 else "")
        bits += _golomb(depth) * 2 + "0" + str(int(scaling))
    bits += _golomb(frames) + _golomb(order)
    bits += {0: _golomb(3), 1: "1" + _golomb(4) * 2 + _golomb(2) + _golomb(5) * 2, 2: ""}[order]
    bits += _golomb(4) + "0" + _golomb(19) + _golomb(14) + ("01" if fields else "1") + "1"
    bits += "1" + _golomb(1) * 4 if crop else "0"
    if colours is None:
        bits += "0"
    else:
        bits += "1" + ("0" if shape is None else f"1{shape:08b}")
        bits += f"{3:016b}{2:016b}" if shape == 255 else ""
        bits += "11" + str(int(colours)) + "000"
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    for low in range(4):  # emulation prevention
        data = data.replace(bytes((0, 0, low)), bytes((0, 0, 3, low)))
    return bytes([0x67, profile, 0, 30]) + data


def _box(*units: bytes) -> bytes:
    """An ``avcC`` box of these parameter sets."""
    body = b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
    return bytes([1, 100, 0, 30, 0xFF, 0xE0 | len(units)]) + body + b"\x00"


@pytest.mark.parametrize(
    ("options", "as_decoded", "colours"),
    [
        (IN_ORDER, True, False),
        (X264 | {"g": "1"}, True, False),
        (IN_ORDER | {"x264-params": "cabac=0:8x8dct=0:weightp=0"}, True, False),  # baseline
        (X264, False, False),
        (X264 | {"bf": "7"}, False, False),
        (X264 | {"x264-params": "colormatrix=bt709"}, False, True),
        (IN_ORDER | {"x264-params": "fullrange=on"}, True, True),
    ],
)
def test_streams_of_an_encoder(
    options: dict[str, str], as_decoded: bool, colours: bool, video: Make
) -> None:
    header = _header(video(".mp4", "libx264", options=options))
    sets = parameter_sets(header)
    assert sets is not None
    assert all(one.as_decoded for one in sets) is as_decoded
    assert [one.colours for one in sets] == [colours]
    for end in range(header.index(b"\x67") + 4):  # before anything is said
        assert parameter_sets(header[:end]) is None


@given(
    profile=st.sampled_from((66, 77, 88, 100, 110, 122, 244)),
    identity=st.integers(0, 31),
    chroma=st.integers(0, 3),
    depth=st.integers(0, 6),
    frames=st.integers(0, 12),
    order=st.integers(0, 2),
    crop=st.booleans(),
    fields=st.booleans(),
    shape=st.sampled_from((None, 1, 255)),
    colours=st.sampled_from((None, False, True)),
    others=st.integers(0, 2),
)
def test_parameter_sets_bit_by_bit(others: int, **said: Any) -> None:
    sets = parameter_sets(_box(*[_parameter_set(profile=77)] * others, _parameter_set(**said)))
    other = ParameterSet(order=2, colours=False)
    assert sets == [other] * others + [ParameterSet(said["order"], bool(said["colours"]))]
    assert all(one.as_decoded for one in sets) is (said["order"] == 2)


def test_what_is_not_told() -> None:
    assert parameter_sets(_box(_parameter_set(profile=100))) is not None
    assert parameter_sets(_box(_parameter_set(profile=100, scaling=True))) is None
    assert parameter_sets(_box()) is None
    assert parameter_sets(b"\x00\x00\x00\x01\x67\x42\x00\x1e") is None


@given(st.binary(max_size=64))
def test_nonsense_is_no_answer(data: bytes) -> None:
    assert parameter_sets(b"\x01" + data[:4] + b"\xe1\x00\x08\x67" + data[:3]) is None


@pytest.mark.skipif(not HAS_INDEX, reason="this PyAV tells no index")
def test_colours_of_the_first_part_stay_in_force(
    video: Make, plain: Callable[[Path], list[Any]], tmp_path: Path
) -> None:
    """One part tells its colours, the next none, and the container none at all."""
    tells = IN_ORDER | {"x264-params": "colormatrix=bt709"}
    parts = [video(".mp4", "libx264", options=o, container=NO_COLOURS) for o in (tells, IN_ORDER)]
    path = tmp_path / "two.mp4"
    with (
        av.open(str(parts[0])) as one,
        av.open(str(parts[1])) as two,
        av.open(str(path), "w", options=NO_COLOURS) as new,
    ):
        stream = new.add_stream_from_template(one.streams.video[0])
        packets = [p for old in (one, two) for p in old.demux(video=0) if p.size]
        for number, packet in enumerate(packets):
            if number == 50:  # the second part's header, ahead of its first picture
                packet = av.Packet(_units(_header(parts[1])) + bytes(packet))
                packet.is_keyframe = True
                packet.time_base = packets[0].time_base
            packet.pts = packet.dts = number * 512
            packet.stream = stream
            new.mux(packet)
    truth = plain(path)
    assert len(truth) == 100
    for index in (0, 49, 60, 99):
        with PyAVReader().open(path) as opened:
            np.testing.assert_array_equal(opened.read([index])[0], truth[index])


@pytest.mark.parametrize(
    ("kind", "openings"),
    [
        ({"options": IN_ORDER}, [False]),
        ({"options": X264 | {"g": "1"}}, [False]),
        ({"options": X264}, [False]),  # the container says so; the last group has 2 frames
        ({"options": IN_ORDER | {"x264-params": "colormatrix=bt709"}}, [False, True]),
        ({"options": X264, "container": {"movflags": "frag_keyframe"}}, [False, True]),
        ({"options": IN_ORDER, "suffix": ".mkv"}, [True]),
        ({"codec": "mpeg4"}, [False, True]),
        ({"codec": "libx265", "options": {"x265-params": "log-level=none"}}, [False, True]),
    ],
    ids=lambda value: "".join(c for c in repr(value) if c.isalnum()),
)
def test_only_what_needs_it_is_probed(
    kind: dict[str, Any],
    openings: list[bool],
    video: Make,
    plain: Callable[[Path], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = video(**{"suffix": ".mp4", "codec": "libx264"} | kind)
    truth, real, seen = plain(path), av.open, []

    def watched(*given: Any, container_options: dict[str, str], **named: Any) -> Any:
        seen.append("codec_whitelist" not in container_options)
        return real(*given, container_options=container_options, **named)

    monkeypatch.setattr(opening.av, "open", watched)
    with PyAVReader().open(path, num_frames=50) as opened:
        frames = opened.read([0, 1, 13, 49])
    # Before PyAV 17 an index cannot be read, and whatever is not probed at first is probed then.
    assert seen == (openings if HAS_INDEX or openings[-1] else [*openings, True])
    for index, frame in zip((0, 1, 13, 49), frames, strict=True):
        np.testing.assert_array_equal(frame, truth[index])
