"""What is said of a file before it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import pytest

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import VideoProbe, probe

H264 = {"options": {"threads": "1", "g": "12"}}
Make = Callable[..., Path]


@pytest.mark.parametrize("decode", [False, True])
def test_a_plain_file(video: Make, decode: bool) -> None:
    found = probe(video(".mp4", "libx264", **H264), decode=decode)
    assert found == VideoProbe(
        duration=pytest.approx(2.0),
        num_frames=50,
        exact=decode,
        fps=25.0,
        width=96,
        height=64,
        codec="h264",
        keyframe_interval=10.0,  # of 5 keyframes, the last stands before 2 frames
        damaged=0.0 if decode else None,
    )
    assert set(asdict(found)) == set(VideoProbe.__slots__)


@pytest.mark.parametrize(
    ("suffix", "codec", "how"),
    [
        (".avi", "mpeg4", {"options": {"bf": "2"}}),
        (".ts", "mpeg2video", {}),
        (".h264", "libx264", {}),
        (".gif", "gif", {"pix_fmt": "rgb8"}),
    ],
)
def test_a_file_in_doubt_is_counted(
    video: Make, suffix: str, codec: str, how: dict[str, Any]
) -> None:
    found = probe(video(suffix, codec, **how))
    assert found.exact
    assert found.num_frames == 50
    assert found.duration == pytest.approx(2.0, rel=0.02)
    assert found.fps == pytest.approx(25, rel=0.02)


def test_uneven_times(video: Make) -> None:
    found = probe(video(".mp4", "libx264", **H264, irregular=True))
    assert found.num_frames == 50
    assert found.duration == pytest.approx((50 + 49 // 3) / 25)
    assert found.fps == pytest.approx(50 / found.duration, rel=0.02)


def test_interlaced_h264_is_counted(video: Make) -> None:
    """Two fields may come in two packets; this file's come in one, which only decoding reveals."""
    options = {"threads": "1", "x264-params": "tff=1"}
    assert probe(video(".mp4", "libx264", options=options)).exact


def test_one_frame(video: Make) -> None:
    found = probe(video(".mp4", "libx264", **H264, frames=1))
    assert found.num_frames == 1
    assert found.duration is None or found.duration > 0
    assert found.keyframe_interval == 1


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".avi", "mpeg4")])
def test_a_truncated_file_is_refused(
    video: Make, tmp_path: Path, suffix: str, codec: str, decode: bool
) -> None:
    container = {"movflags": "faststart"} if suffix == ".mp4" else {}
    whole = video(suffix, codec, container=container).read_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole[: int(0.6 * len(whole))])
    with pytest.raises(VideoError, match=r"truncated: the header promises 50 frames, \d+ decode"):
        probe(path, decode=decode)


def test_a_damaged_file_is_refused(video: Make, packet_places: Any, tmp_path: Path) -> None:
    source = video(".mp4", "libx264", **H264)
    content = bytearray(source.read_bytes())
    for at, _ in packet_places(source)[10:20]:
        content[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="damaged: 10 of 50 packets do not decode"):
        probe(path)


def test_little_damage_is_counted(video: Make, packet_places: Any, tmp_path: Path) -> None:
    source = video(".mp4", "libx264", **H264)
    content = bytearray(source.read_bytes())
    at, _ = packet_places(source)[20]
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    found = probe(path)
    assert found.exact
    assert found.num_frames == 49


def test_an_edit_list_is_no_truncation(video: Make, remux: Any, tmp_path: Path) -> None:
    def earlier(number: int, packet: av.Packet) -> av.Packet:
        packet.pts -= 30 * 512
        packet.dts -= 30 * 512
        return packet

    source = video(".mp4", "libx264", **H264)
    path = remux(source, tmp_path / "a.mp4", earlier, avoid_negative_ts="disabled")
    found = probe(path)
    assert found.num_frames == 20
    assert found.duration == pytest.approx(0.8)


def test_size_is_that_of_the_upright_picture(real_data: Path) -> None:
    found = probe(real_data / "clips" / "decord__video_90.mov")
    assert (found.width, found.height) == (320, 568)


def test_counts_of_real_files(real_data: Path) -> None:
    for folder in ("clips", "clips_derived"):
        lines = (real_data / folder / "MANIFEST.tsv").read_text().splitlines()
        names = lines[0].split("\t")
        for line in lines[1:]:
            row = dict(zip(names, line.split("\t"), strict=False))
            if Path(row["path"]).name.startswith("bad_") or "corrupted" in row["path"]:
                continue
            found = probe(real_data / row["path"])
            assert found.num_frames == int(row["frames_decoded"]), row["path"]
            assert found.codec == row["codec"], row["path"]


def test_bad_real_files(real_data: Path) -> None:
    reasons = {
        "bad_audio_only.mp4": "no video stream",
        "bad_bitflips_mdat.mp4": "damaged: 51 of 120 packets do not decode",
        "bad_text.mp4": "no video format that can be read",
        "bad_truncated_faststart_60pct.mp4": "truncated: the header promises 120 frames, 64 decode",
        "bad_truncated_no_moov.mp4": "truncated or unfinished",
        "bad_truncated_xvid.avi": "truncated: the header promises 240 frames, 97 decode",
        "bad_zero_bytes.mp4": "empty file",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason):
            probe(real_data / "clips_derived" / name)
