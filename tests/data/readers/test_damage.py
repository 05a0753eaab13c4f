"""Damaged files: what is known of them, and that their frames are those of a plain decode."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import PyAVReader, probe

Make = Callable[..., Path]
Plain = Callable[[Path], list[Any]]
X264 = {"threads": "1", "g": "12"}
X265 = {"preset": "ultrafast", "x265-params": "keyint=12:log-level=none:pools=1"}


def _each_equals(path: Path, truth: list[Any]) -> None:
    for index in range(len(truth)):
        with PyAVReader().open(path) as opened:
            np.testing.assert_array_equal(opened.read([index])[0], truth[index], err_msg=str(index))
            assert opened.num_frames == len(truth)


def _spoilt(video: Make, packet_places: Any, path: Path, packets: range) -> Path:
    """Write a file in which the second half of some packets is other bytes."""
    source = video(".mp4", "libx264", options=X264)
    content = bytearray(source.read_bytes())
    for at, size in packet_places(source)[packets.start : packets.stop : packets.step]:
        content[at + size // 2 : at + size] = b"\x5a" * (size - size // 2)
    path.write_bytes(content)
    return path


def test_frames_that_decode_damaged_are_counted(
    video: Make, plain: Plain, packet_places: Any, tmp_path: Path
) -> None:
    path = _spoilt(video, packet_places, tmp_path / "a.mp4", range(14, 50, 4))
    marked = lost = 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1  # with several, what is lost depends on timing
        for packet in container.demux(video=0):
            try:
                marked += sum(frame.is_corrupt for frame in packet.decode())
            except av.FFmpegError:
                lost += 1
    assert marked > lost
    assert marked + lost > 5
    with pytest.raises(VideoError, match=r"damaged: \d+ of 50 packets are damaged"):
        probe(path, decode=True)
    found = probe(path, decode=True, max_damaged=1)
    assert found.damaged is not None
    assert (marked + lost) / 50 <= found.damaged <= 1
    assert probe(path).damaged is None  # which was not asked
    _each_equals(path, plain(path))


def test_little_damage_is_kept_and_told(video: Make, packet_places: Any, tmp_path: Path) -> None:
    path = _spoilt(video, packet_places, tmp_path / "a.mp4", range(12, 13))
    found = probe(path, decode=True)
    assert found.damaged == pytest.approx(1 / 50)
    with pytest.raises(VideoError, match="damaged: 1 of 50"):
        probe(path, decode=True, max_damaged=0)


def test_lost_references_are_noticed(video: Make, remux: Any, tmp_path: Path) -> None:
    """FFmpeg neither fails nor marks frames whose references are missing from an HEVC stream."""
    source = video(".mkv", "libx265", options=X265)
    path = remux(source, tmp_path / "a.mkv", lambda number, packet: packet if number != 1 else None)
    found = probe(path, decode=True, max_damaged=1)
    assert found.damaged is not None
    assert found.damaged > 0.05
    assert probe(source, decode=True).damaged == 0


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_out_of_range(share: float, video: Make) -> None:
    with pytest.raises(UserError, match="max_damaged"):
        probe(video(".mp4", "libx264", options=X264), max_damaged=share)
    with pytest.raises(UserError, match="max_damaged"):
        PyAVReader(max_damaged=share)


def test_the_reader_refuses_as_chosen(video: Make, packet_places: Any, tmp_path: Path) -> None:
    source = video(".mp4", "libx264", options=X264)
    content = bytearray(source.read_bytes())
    for at, _ in packet_places(source)[10:20]:
        content[at : at + 4] = b"\xff\xff\xff\xff"
    (path := tmp_path / "a.mp4").write_bytes(content)
    # PyAV 14 cannot tell by the header that frames are stored in order, so it decodes on opening.
    with (
        pytest.raises(VideoError, match="10 of 50 packets do not decode"),
        PyAVReader().open(path) as opened,
    ):
        opened.read([15])
    with PyAVReader(max_damaged=0.5).open(path, num_frames=40) as opened:
        assert len(opened.read([15])) == 1


def test_an_avi_without_its_index_has_no_keyframes(
    video: Make, plain: Plain, tmp_path: Path
) -> None:
    """What FFmpeg then calls a keyframe is none: decoding from it would give another picture."""
    whole = video(".avi", "flv", options={"g": "12"}).read_bytes()
    (path := tmp_path / "a.avi").write_bytes(whole[: whole.rindex(b"idx1")])
    _each_equals(path, plain(path))


def test_frames_of_one_size_are_told_apart(
    video: Make, plain: Plain, packet_places: Any, tmp_path: Path
) -> None:
    """Reading on from a gap, FFmpeg counts on; after seeking it goes by the index."""
    source = video(".avi", "rawvideo", pix_fmt="gray", frames=20)
    content = bytearray(source.read_bytes())
    at, size = packet_places(source)[7]
    content[at - 8 : at + size] = bytes(8 + size)
    (path := tmp_path / "a.avi").write_bytes(content)
    _each_equals(path, plain(path))


def test_parameter_sets_in_one_packet_alone(plain: Plain, tmp_path: Path) -> None:
    """Two streams in one, the second of which names its parameters once, at its beginning."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for part, more in enumerate(("", ":cbqpoffs=6:no-sao=1")):
            packets = _hevc(part, more)
            if part == 0:
                stream.codec_context.extradata = packets[0].partition(b"\0\0\1\x4e")[0]
            for number, content in enumerate(packets):
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts = packet.dts = 20 * part + number
                packet.is_keyframe = number % 5 == 0
                file.mux(packet)
    _each_equals(path, plain(path))


def _hevc(part: int, more: str) -> list[bytes]:
    """Encode 20 frames of noise that moves, parameter sets before the first alone."""
    context: Any = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = 96, 64, "yuv420p"
    context.time_base = Fraction(1, 25)
    params = f"keyint=5:bframes=0:open-gop=0:log-level=none:pools=1:annexb=1{more}"
    context.options = {"preset": "ultrafast", "x265-params": params}
    noise = np.random.default_rng(part).integers(0, 255, (64, 200, 3), np.uint8)
    packets = []
    for number in range(20):
        frame = av.VideoFrame.from_ndarray(noise[:, number : number + 96].copy(), format="rgb24")
        frame.pts, frame.time_base = number, context.time_base
        packets += context.encode(frame)
    packets += context.encode(None)
    content = [bytes(packet) for packet in packets]
    return [
        bytes(context.extradata or b"") * (not content[0].startswith(b"\0\0\0\1\x40")) + content[0],
        *content[1:],
    ]


def test_the_name_of_a_codec_may_be_any_bytes(video: Make, plain: Plain, tmp_path: Path) -> None:
    content = video(".mov", "mpeg4", frames=4).read_bytes()
    (path := tmp_path / "a.mov").write_bytes(content.replace(b"mp4v", b"mp4\xed"))
    assert probe(path).num_frames == 4
    _each_equals(path, plain(path))


@pytest.mark.parametrize("suffix", [".avi", ".mov"])
def test_a_palette_that_comes_once_colours_every_frame(suffix: str, tmp_path: Path) -> None:
    numbers = np.arange(256, dtype=np.uint8)
    palette = np.stack([255 + 0 * numbers, numbers, 255 - numbers, 0 * numbers + 77], axis=1)
    pictures = [np.tile(numbers[3 * n : 3 * n + 64], (48, 1)) for n in range(20)]
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray((picture, palette), format="pal8")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    _each_equals(path, [palette[picture, 1:] for picture in pictures])
