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
from vclr_lightning.data.readers.order import shows_as_decoded

Make = Callable[..., Path]
X264 = {"threads": "1", "g": "12"}
IN_ORDER = X264 | {"bf": "0"}


def _header(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.extradata or b""


def _golomb(number: int) -> str:
    digits = f"{number + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _parameter_set(
    *, profile: int, identity: int, chroma: int, depth: int, scaling: bool, frames: int, order: int
) -> bytes:
    """One of H.264 up to ``pic_order_cnt_type``, bit by bit as 7.3.2.1.1 lists them."""
    bits = _golomb(identity)
    if profile >= 100:
        bits += _golomb(chroma) + ("0" if chroma == 3 else "")
        bits += _golomb(depth) * 2 + "0" + str(int(scaling))
    bits += _golomb(frames) + _golomb(order) + "1"
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([0x67, profile, 0, 30]) + data


def _box(*units: bytes) -> bytes:
    """An ``avcC`` box of these parameter sets."""
    body = b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
    return bytes([1, 100, 0, 30, 0xFF, 0xE0 | len(units)]) + body + b"\x00"


@pytest.mark.parametrize(
    ("options", "as_decoded"),
    [
        (IN_ORDER, True),
        (X264 | {"g": "1"}, True),
        (IN_ORDER | {"profile": "baseline"}, True),
        (X264, False),
        (X264 | {"bf": "7"}, False),
    ],
)
def test_streams_of_an_encoder(options: dict[str, str], as_decoded: bool, video: Make) -> None:
    header = _header(video(".mp4", "libx264", options=options))
    assert shows_as_decoded(header) is as_decoded
    for end in range(header.index(b"\x67") + 4):  # before anything is said
        assert not shows_as_decoded(header[:end])


@given(
    profile=st.sampled_from((66, 77, 88, 100, 110, 122, 244)),
    identity=st.integers(0, 31),
    chroma=st.integers(0, 3),
    depth=st.integers(0, 6),
    frames=st.integers(0, 12),
    order=st.integers(0, 2),
    others=st.integers(0, 2),
)
def test_parameter_sets_bit_by_bit(others: int, **said: int) -> None:
    unit = _parameter_set(scaling=False, **said)
    fine = _parameter_set(
        profile=77, identity=1, chroma=1, depth=0, scaling=False, frames=0, order=2
    )
    assert shows_as_decoded(_box(*[fine] * others, unit)) is (said["order"] == 2)


def test_what_is_not_told() -> None:
    said = {"identity": 0, "chroma": 1, "depth": 0, "frames": 0, "order": 2}
    assert shows_as_decoded(_box(_parameter_set(profile=100, scaling=False, **said)))
    assert not shows_as_decoded(_box(_parameter_set(profile=100, scaling=True, **said)))
    assert not shows_as_decoded(_box())
    assert not shows_as_decoded(b"\x00\x00\x00\x01\x67\x42\x00\x1e")


@given(st.binary(max_size=64))
def test_nonsense_is_no_answer(data: bytes) -> None:
    assert not shows_as_decoded(b"\x01" + data[:4] + b"\xe1\x00\x08\x67" + data[:3])


@pytest.mark.parametrize(
    ("kind", "openings"),
    [
        ({"options": IN_ORDER}, [False]),
        ({"options": X264 | {"g": "1"}}, [False]),
        ({"options": X264}, [False]),  # the container says so; the last group has 2 frames
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
    assert seen == openings
    for rank, frame in zip((0, 1, 13, 49), frames, strict=True):
        np.testing.assert_array_equal(frame, truth[rank])
