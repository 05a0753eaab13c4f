"""When frames are shown, beside what decoding each of them tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vclr_lightning.data.readers import PyAVReader, probe
from vclr_lightning.data.readers.opening import PYAV
from vclr_lightning.data.readers.sequential import stamped_times

Make = Callable[..., Path]
ANY_TEXT: dict[str, Any] = {"metadata_errors": "ignore"} if PYAV < 19 else {}


@pytest.mark.parametrize("folder", ["clips", "clips_derived"])
def test_times_are_those_of_the_decoded_frames(real_data: Path, folder: str) -> None:
    checked = 0
    for file in sorted((real_data / folder).iterdir()):
        if file.suffix == ".tsv" or file.name.startswith(("bad_", "decord__corrupted")):
            continue
        with PyAVReader().open(file) as video:
            times = video.times()
            assert times.shape == (video.num_frames,)
            assert times[0] == 0
            assert (np.diff(times) > 0).all()
        with av.open(str(file), **ANY_TEXT) as container:
            shown = np.sort([frame.time for frame in container.decode(video=0)])
        off = np.abs(times - (shown - shown[0]))
        # The last frame of a cut MP4 may be shown later than its index's even spacing says.
        assert off[:-1].max(initial=0) < 1.5e-3, file.name
        assert off[-1] < 1.5e-3 + np.diff(times).max(initial=0), file.name
        checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"threads": "1", "g": "12"}),
        (".mp4", "mpeg4", {"bf": "2"}),
        (".mkv", "libx264", {"threads": "1", "g": "12"}),
        (".mkv", "mpeg1video", {}),
        (".webm", "libvpx", {"deadline": "realtime"}),
        (".flv", "libx264", {"threads": "1", "bf": "0"}),
        (".wmv", "wmv2", {}),
        (".ts", "mpeg2video", {"bf": "2"}),
        (".ts", "mpeg1video", {}),
        (".ts", "libx264", {"threads": "1", "g": "12"}),
        (".nut", "mpeg4", {}),
    ],
)
def test_uneven_times_in_every_container(
    suffix: str, codec: str, options: dict[str, str], video: Make
) -> None:
    path = video(suffix, codec, options=options, irregular=True)
    shown = np.array([number + number // 3 for number in range(50)]) / 25
    with PyAVReader().open(path) as opened:
        np.testing.assert_allclose(opened.times(), shown, atol=1.5e-3)
    with PyAVReader().open(path, num_frames=50) as opened:
        np.testing.assert_allclose(opened.times(), shown, atol=1.5e-3)
    for decode in (False, True):
        found = probe(path, decode=decode)
        assert found.duration == pytest.approx(shown[-1] + 0.04, abs=2e-3)
        assert found.fps == pytest.approx(50 / (shown[-1] + 0.04), rel=0.02)


def test_a_clock_that_starts_anew_goes_on(video: Make, tmp_path: Path) -> None:
    """Recordings that were joined, each with its own clock."""
    part = video(".ts", "mpeg2video").read_bytes()
    (path := tmp_path / "a.ts").write_bytes(part + part + part)
    with PyAVReader().open(path) as opened:
        np.testing.assert_allclose(opened.times(), np.arange(150) / 25, atol=1e-3)
    assert probe(path).duration == pytest.approx(6)


def test_the_unit_of_time_is_no_rate(video: Make, remux: Any, tmp_path: Path) -> None:
    def uneven(number: int, packet: av.Packet) -> av.Packet:
        packet.duration = 1
        return packet

    source = video(".mp4", "libx264", options={"threads": "1", "bf": "0"})
    for suffix in (".mkv", ".flv"):
        path = remux(source, tmp_path / f"a{suffix}", uneven)
        assert probe(path).fps == pytest.approx(25, rel=0.02)


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([5, 6, 9], [0, 1, 4]),
        ([0, *[None] * 2, *range(3, 40)], range(40)),
        ([*range(37), None, None, 39], range(40)),
        ([0, 3, 1, 2, 4], range(5)),  # times of decoding, of reordered frames
        ([*range(100, 150), *range(50)], range(100)),
        ([7] * 40, None),
        ([None] * 5, None),
        ([0, None, None, 3], None),
        ([8], [0]),
    ],
)
def test_times_of_frames_that_lack_some(stamps: list[int | None], times: Any) -> None:
    found = stamped_times(stamps, 0.5)
    if times is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, np.array(times) / 2)
