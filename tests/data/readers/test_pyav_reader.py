"""Files that lie, break, turn or leak, and how the reader takes them."""

from __future__ import annotations

import gc
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.readers.decoding import upright

HAS_INDEX = hasattr(av.stream.Stream, "index_entries")
H264 = {"options": {"threads": "1", "g": "12"}}
Make = Callable[..., Path]
Plain = Callable[[Path], list[Any]]


def _overwrite(source: Path, path: Path, at: int, data: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    return path


def _equal(path: Path, truth: list[Any], indices: list[int], **known: int) -> bool:
    with PyAVReader().open(path, **known) as opened:
        frames = opened.read(indices)
        assert opened.num_frames == len(truth)
    return all(np.array_equal(f, truth[r]) for r, f in zip(indices, frames, strict=True))


def test_repeated_ranks_share_one_array(video: Make) -> None:
    with PyAVReader().open(video(".mp4", "libx264", **H264)) as opened:
        a, b, c = opened.read([7, 3, 7])
    assert a is c
    assert a.shape == b.shape == (64, 96, 3)
    assert a.dtype == np.uint8


def test_frames_outlive_the_file(video: Make, plain: Plain) -> None:
    path = video(".mp4", "libx264", **H264)
    with PyAVReader().open(path) as opened:
        frame = opened.read([20])[0]
    gc.collect()
    np.testing.assert_array_equal(frame, plain(path)[20])


def test_no_ranks_no_frames(video: Make) -> None:
    with PyAVReader().open(video(".mp4", "libx264", **H264)) as opened:
        assert opened.read([]) == []


@pytest.mark.parametrize("indices", [[-1], [50], [0, 99]])
def test_an_index_out_of_range_is_the_callers_mistake(video: Make, indices: list[int]) -> None:
    with (
        PyAVReader().open(video(".mp4", "libx264", **H264)) as opened,
        pytest.raises(IndexError, match=r"0\.\.49"),
    ):
        opened.read(indices)


def test_negative_thread_count_is_refused() -> None:
    with pytest.raises(UserError, match="thread_count=-1"):
        PyAVReader(thread_count=-1)


def test_reader_is_picklable(video: Make) -> None:
    reader = pickle.loads(pickle.dumps(PyAVReader(thread_count=2)))
    with reader.open(video(".mp4", "libx264", **H264)) as opened:
        assert opened.num_frames == 50


def test_damaged_packet_costs_one_frame(
    video: Make, plain: Plain, packet_places: Any, tmp_path: Path
) -> None:
    source = video(".mp4", "libx264", **H264)
    for number in (5, 20):
        at, _ = packet_places(source)[number]
        path = _overwrite(source, tmp_path / f"{number}.mp4", at, b"\xff\xff\xff\xff")
        truth = plain(path)
        assert len(truth) == 49
        with PyAVReader().open(path) as opened:
            if HAS_INDEX:
                assert opened.num_frames == 50  # as the index says
                with pytest.raises(FrameCountChangedError) as info:
                    opened.read([0, number + 1])
                assert info.value.actual == 49
            assert opened.num_frames == 49
            frames = opened.read([0, 30, 48])
        for index, frame in zip([0, 30, 48], frames, strict=True):
            np.testing.assert_array_equal(frame, truth[index])
        assert _equal(path, truth, [0, 4, 30, 48], num_frames=49)


def test_damage_that_the_packet_table_shows_is_counted_at_once(
    video: Make, plain: Plain, packet_places: Any, tmp_path: Path
) -> None:
    source = video(".mkv", "libx264", **H264)
    content = source.read_bytes()
    with av.open(str(source)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    path = _overwrite(source, tmp_path / "a.mkv", content.find(packets[20]), b"\xff\xff\xff\xff")
    assert _equal(path, plain(path), [0, 20, 48])


def test_mostly_damaged_file_is_refused(video: Make, packet_places: Any, tmp_path: Path) -> None:
    content = bytearray(video(".mp4", "libx264", **H264).read_bytes())
    for at, _ in packet_places(video(".mp4", "libx264", **H264))[10:20]:
        content[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with (
        pytest.raises(VideoError, match="damaged: 10 of 50 packets"),
        PyAVReader().open(path) as opened,
    ):
        opened.read([0, 15, 49])


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_truncated_file_gives_what_is_left(
    video: Make, plain: Plain, tmp_path: Path, share: float
) -> None:
    whole = video(".mp4", "libx264", **H264, container={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(whole[: int(share * len(whole))])
    truth = plain(path)
    assert 0 < len(truth) < 50
    assert _equal(path, truth, [0, len(truth) - 1])


def test_wrong_known_count_is_put_right(video: Make) -> None:
    path = video(".mp4", "libx264", **H264)
    with PyAVReader().open(path, num_frames=60) as opened:
        assert opened.num_frames == 60
        assert len(opened.read([0, 49])) == 2
        with pytest.raises(FrameCountChangedError) as info:
            opened.read([55])
        assert info.value.actual == opened.num_frames == 50
        assert len(opened.read([49])) == 1


@pytest.mark.parametrize("later", [0, 1024])
def test_times_of_decoding_in_the_place_of_presentation(
    later: int, video: Make, plain: Plain, remux: Any, tmp_path: Path
) -> None:
    """Frames come reordered, but all their times rise: only decoding reveals the indices."""

    def flatten(number: int, packet: av.Packet) -> av.Packet:
        packet.pts, packet.dts = number * 512, number * 512 - later
        return packet

    for suffix in (".mp4", ".mkv"):
        path = remux(video(".mp4", "libx264", **H264), tmp_path / f"a{suffix}", flatten)
        assert _equal(path, plain(path), [0, 5, 6, 7, 30, 49])


def test_edit_list_drops_frames(video: Make, plain: Plain, remux: Any, tmp_path: Path) -> None:
    def earlier(number: int, packet: av.Packet) -> av.Packet:
        packet.pts -= 17 * 512
        packet.dts -= 17 * 512
        return packet

    source = video(".mp4", "libx264", **H264)
    path = remux(source, tmp_path / "a.mp4", earlier, avoid_negative_ts="disabled")
    truth = plain(path)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 50
    assert len(truth) == 33
    assert _equal(path, truth, [0, 1, 8, 9, 20, 32])
    np.testing.assert_array_equal(truth[0], plain(source)[17])


def test_hidden_vp8_frames_are_no_frames(
    video: Make, plain: Plain, remux: Any, tmp_path: Path
) -> None:
    def hide(number: int, packet: av.Packet) -> av.Packet:
        if number not in (9, 30):
            return packet
        data = bytes(packet)
        hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
        hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
        return hidden

    source = video(".webm", "libvpx", options={"g": "12", "deadline": "realtime"})
    path = remux(source, tmp_path / "a.webm", hide)
    truth = plain(path)
    assert len(truth) == 48
    assert _equal(path, truth, [0, 8, 9, 10, 28, 29, 47])


def test_first_packet_is_no_keyframe(video: Make, plain: Plain, remux: Any, tmp_path: Path) -> None:
    source = video(".mp4", "libx264", **H264)
    path = remux(source, tmp_path / "a.mkv", lambda number, packet: packet if number else None)
    truth = plain(path)
    assert _equal(path, truth, [0, len(truth) - 1])


# Nine numbers of a display matrix, and what they do to a picture.
MATRICES = {
    "none": ((1, 0, 0, 1), lambda a: a),
    "clockwise": ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    "half": ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
    "counterclockwise": ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
    "left to right": ((-1, 0, 0, 1), np.fliplr),
    "clockwise and mirrored": ((0, 1, 1, 0), lambda a: np.swapaxes(a, 0, 1)),
}


def _turn(source: Path, path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copy an MP4 with another display matrix."""
    a, b, c, d = (number << 16 for number in matrix)
    at = source.read_bytes().index(b"tkhd") + 44
    return _overwrite(source, path, at, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


@pytest.mark.parametrize("name", MATRICES)
def test_frames_come_upright(name: str, video: Make, plain: Plain, tmp_path: Path) -> None:
    matrix, turn = MATRICES[name]
    source = video(".mp4", "libx264", **H264)
    path = _turn(source, tmp_path / "a.mp4", matrix)
    with PyAVReader().open(path) as opened:
        frame = opened.read([9])[0]
    np.testing.assert_array_equal(frame, turn(plain(source)[9]))
    assert all(stride > 0 for stride in frame.strides)  # as torch.from_numpy demands


def test_a_slight_tilt_is_left_alone() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tilted = [65000, 3000, 0, -3000, 65000, 0, 0, 0, 1 << 30]
    np.testing.assert_array_equal(upright(picture, tilted), picture)


def test_metadata_in_another_encoding(video: Make, tmp_path: Path) -> None:
    source = tmp_path / "a.avi"
    with av.open(str(source), "w") as container:
        container.metadata["title"] = "Pippi Langstrumpf"
        stream = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    at = source.read_bytes().index(b"Langstrumpf")
    path = _overwrite(source, tmp_path / "b.avi", at + 1, b"\xe4")
    with pytest.raises(UnicodeDecodeError):
        path.read_bytes()[at : at + 11].decode()
    with PyAVReader().open(path) as opened:
        assert len(opened.read([0])) == 1


def test_a_colon_in_a_name_is_no_protocol(
    video: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip:1.mp4").write_bytes(video(".mp4", "libx264", **H264).read_bytes())
    monkeypatch.chdir(tmp_path)
    with PyAVReader().open(Path("clip:1.mp4")) as opened:
        assert opened.num_frames == 50


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no video at all, only words", "no video format that can be read"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(100), r"the index \(moov\) of the MP4 is missing"),
    ],
)
def test_what_is_no_video_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=reason), PyAVReader().open(path):
        pass


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="does not exist"), PyAVReader().open(tmp_path / "a.mp4"):
        pass
    with pytest.raises(VideoError, match="a folder"), PyAVReader().open(tmp_path):
        pass


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream"), PyAVReader().open(path):
        pass


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors and memory in /proc")
def test_two_thousand_videos_leak_nothing(video: Make, tmp_path: Path) -> None:
    small = {"size": (32, 32), "frames": 6}
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(100))
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video(".mp4", "libx264", **small).read_bytes()[:-300])
    turned = tmp_path / "turned.mp4"
    _turn(video(".mp4", "libx264", **small), turned, (0, 1, -1, 0))
    paths = [
        video(".mp4", "libx264", **small),
        turned,
        video(".avi", "mpeg4", **small),
        video(".ts", "mpeg2video", **small),
        video(".gif", "gif", pix_fmt="rgb8", **small),
        damaged,
        broken,
    ]
    reader = PyAVReader()

    def read(times: int) -> None:
        for number in range(times):
            try:
                with reader.open(paths[number % len(paths)]) as opened:
                    opened.read([0, opened.num_frames - 1])
            except (VideoError, FrameCountChangedError):
                pass

    gc.collect()
    gc.disable()  # nothing may wait for the collector
    try:
        read(300)
        memory, descriptors = _resident_bytes(), len(os.listdir("/proc/self/fd"))
        read(2000)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert _resident_bytes() - memory < 20e6
    finally:
        gc.enable()


def test_readers_do_not_import_torch() -> None:
    code = (
        "import sys; import vclr_lightning.data.readers; "
        "sys.exit(int('torch' in sys.modules or 'torchvision' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
