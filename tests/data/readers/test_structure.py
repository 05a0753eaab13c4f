"""What the bytes of a file tell of it: that it is cut off, encrypted, or something else."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import PyAVReader, probe

Make = Callable[..., Path]
X264 = {"threads": "1", "g": "12"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "11" * 16,
    "encryption_kid": "ab" * 16,
}


def _refusals(path: Path) -> set[str]:
    """Why indexing, with and without decoding, and the reader refuse a file."""
    reasons = set()
    for look in (probe, lambda file: probe(file, decode=True), _read):
        with pytest.raises(VideoError) as refusal:
            look(path)
        reasons.add(str(refusal.value))
    return reasons


def _read(path: Path) -> None:
    with PyAVReader().open(path) as opened:
        opened.read([opened.num_frames // 2])


@pytest.mark.parametrize(
    ("suffix", "codec", "how"),
    [
        (".mkv", "libx264", {"options": X264}),
        (".webm", "libvpx", {"options": {"g": "12", "deadline": "realtime"}}),
        (".wmv", "wmv2", {"options": {"g": "12"}}),
        (".flv", "flv", {"options": {"g": "12"}}),
        (".mov", "libx264", {"options": X264, "container": {"movflags": "faststart"}}),
        (".avi", "mpeg4", {"options": {"g": "12"}}),
    ],
)
def test_a_file_that_is_cut_off(
    suffix: str, codec: str, how: dict[str, Any], video: Make, tmp_path: Path
) -> None:
    """Half of one is refused; of one that is nearly whole, what is there counts."""
    whole = video(suffix, codec, **how).read_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    for decode in (False, True):
        with pytest.raises(VideoError, match=r"truncated: .* header promises"):
            probe(path, decode=decode)
    path.write_bytes(whole[: int(0.91 * len(whole))])
    with av.open(str(path)) as container:
        frames = sum(
            len(packet.decode()) for packet in container.demux(video=0) if not packet.is_corrupt
        )
    found = probe(path)
    assert 40 < frames <= found.num_frames < 50
    assert found.duration == pytest.approx(found.num_frames / 25, abs=0.01)


@pytest.mark.parametrize(
    ("suffix", "codec", "how"),
    [
        (".mkv", "libx264", {"options": X264, "container": {"live": "1"}}),
        (".mp4", "libx264", {"options": X264, "container": FRAGMENTS}),
        (".ts", "mpeg2video", {}),
        (".gif", "gif", {"pix_fmt": "rgb8"}),
    ],
)
def test_where_nothing_is_promised_what_is_there_counts(
    suffix: str, codec: str, how: dict[str, Any], video: Make, plain: Any, tmp_path: Path
) -> None:
    whole = video(suffix, codec, **how).read_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    found = probe(path)
    assert found.num_frames == len(plain(path)) < 40
    assert found.duration == pytest.approx(found.num_frames / 25, abs=0.05)


def test_a_header_too_small_to_hold_its_numbers(video: Make, tmp_path: Path) -> None:
    for suffix, codec in (
        (".mkv", "libx264"),
        (".wmv", "wmv2"),
        (".flv", "flv"),
        (".avi", "mpeg4"),
    ):
        whole = video(suffix, codec, options={"g": "12"}).read_bytes()
        for size in (3, 9, 40, 80):
            (path := tmp_path / f"a{suffix}").write_bytes(whole[:size])
            with pytest.raises(VideoError):
                probe(path)


@pytest.mark.parametrize(
    "container",
    [CENC, CENC | {"movflags": "faststart"}, CENC | FRAGMENTS],
    ids=["mp4", "faststart", "fragments"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_common_encryption(suffix: str, container: dict[str, str], video: Make) -> None:
    path = video(suffix, "libx264", options=X264, container=container)
    if not hasattr(av.Packet, "has_sidedata"):  # before PyAV 16 only indexing notices
        with pytest.raises(VideoError, match="encrypted"):
            probe(path)
        return
    assert {reason.partition(":")[0] for reason in _refusals(path)} == {"encrypted"}


def _asf_object(kind: str, content: bytes) -> bytes:
    return uuid.UUID(kind).bytes_le + struct.pack("<Q", 24 + len(content)) + content


DRM = {
    "2211B3FB-BD23-11D2-B4B7-00A0C955FC6E": b"".join(
        struct.pack("<I", len(text)) + text for text in (b"data", b"DRM\0", b"key\0", b"http\0")
    ),
    "298AE614-2622-4C17-B935-DAE07EE9289C": struct.pack("<I", 12) + b"<PLAYREADY/>",
}


@pytest.mark.parametrize("kind", DRM)
def test_asf_under_drm(kind: str, video: Make, tmp_path: Path) -> None:
    header = video(".wmv", "wmv2", options={"g": "12"}).read_bytes()
    size, objects = struct.unpack_from("<QI", header, 16)
    more = _asf_object(kind, DRM[kind])
    path = tmp_path / "a.wmv"
    path.write_bytes(
        header[:16] + struct.pack("<QI", size + len(more), objects + 1) + header[28:30] + more
    )
    with path.open("ab") as file:
        file.write(header[30:])
    assert {reason.partition(":")[0] for reason in _refusals(path)} == {"encrypted"}


def _element(kind: str, content: bytes) -> bytes:
    return bytes.fromhex(kind) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def test_encrypted_matroska(video: Make, tmp_path: Path) -> None:
    whole = video(".webm", "libvpx", options={"g": "12", "deadline": "realtime"}).read_bytes()
    at = whole.rindex(b"\x16\x54\xae\x6b")  # Tracks, which the index at the front names, too
    length = 9 - whole[at + 4].bit_length()
    size = int.from_bytes(whole[at + 4 : at + 4 + length], "big") & ~(1 << 7 * length)
    begin = whole.index(b"\xae\x01", at)  # TrackEntry, with a size of eight bytes
    end = begin + 9 + (int.from_bytes(whole[begin + 1 : begin + 9], "big") & ~(1 << 56))
    key = _element("5035", _element("47e1", b"\5") + _element("47e2", b"0123456789abcdef"))
    scope = _element("5031", b"\0") + _element("5032", b"\1") + _element("5033", b"\1")
    entry = whole[begin + 9 : end] + _element("6d80", _element("6240", scope + key))
    rest = whole[end : at + 4 + length + size]
    tracks = _element("1654ae6b", _element("ae", entry) + rest)
    path = tmp_path / "a.webm"
    path.write_bytes(whole[:at] + tracks + whole[at + 4 + length + size :])
    assert {reason.partition(":")[0] for reason in _refusals(path)} == {"encrypted"}


def test_a_scrambled_transport_stream(video: Make, tmp_path: Path) -> None:
    content = bytearray(video(".ts", "libx264", options=X264).read_bytes())
    draw = random.Random(0)
    for at in range(0, len(content), 188):
        if content[at + 1] & 31 == 1:  # identifiers 256 to 511: no table
            content[at + 3] |= 0x80
            content[at + 12 : at + 188] = draw.randbytes(176)
    (path := tmp_path / "a.ts").write_bytes(content)
    assert {reason.partition(":")[0] for reason in _refusals(path)} == {"encrypted"}


def _zipped() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("a.txt", "text")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html>\n<html><title>404 Not Found</title>", "an HTML page"),
        (b"\xef\xbb\xbf<HTML>moved</HTML>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
        (b'{"message": "Bad credentials", "status": "401"}', "a JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "Git LFS's pointer"),
        (_zipped(), "a zip archive; unpack it"),
        (gzip.compress(b"video", mtime=0), "packed by gzip; unpack it"),
        (b"%PDF-1.4\x00\x01", "a PDF document"),
        ("Zugriff verweigert: größer".encode(), "a text file"),
        (bytes(4000), "no video format that can be read"),
    ],
)
def test_what_is_no_video_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.mp4").write_bytes(content)
    (said,) = _refusals(path)
    assert reason in said


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_why_an_mp4_cannot_be_opened(video: Make, tmp_path: Path) -> None:
    head = _box(b"ftyp", b"isom\0\0\0\0isom")
    whole = video(".mp4", "libx264", options=X264, container={"movflags": "faststart"})
    fragments = video(".mp4", "libx264", options=X264, container=FRAGMENTS).read_bytes()
    locked = video(".mp4", "libx264", options=X264, container=CENC | FRAGMENTS).read_bytes()
    content = whole.read_bytes()
    begin = content.index(b"moov") - 4
    index = content[begin : begin + int.from_bytes(content[begin : begin + 4], "big")]
    sound = index.replace(b"vide", b"soun")
    cases = {
        head + _box(b"mdat", bytes(99)): "unfinished: the index (moov) of the MP4 is missing",
        fragments[
            fragments.index(b"moof") - 4 :
        ]: "a fragment of a streamed MP4 without its header",
        head + index[: len(index) // 2]: "truncated: it ends within its index (moov)",
        head + _box(b"meta", bytes(99)): "a picture (HEIF or AVIF)",
        locked.replace(b"senc\0\0\0\2\0\0", b"senc\0\0\0\2\xff\xff"): "encrypted",
        head + sound.replace(b"stsd", b"skip"): "no video stream",
    }
    for number, (bytes_, reason) in enumerate(cases.items()):
        (path := tmp_path / f"{number}.mp4").write_bytes(bytes_)
        assert all(reason in said for said in _refusals(path)), reason
    damaged = bytearray(content)
    damaged[content.index(b"stsd") - 8 : content.index(b"stsd") + 60] = b"\xff" * 68
    (path := tmp_path / "damaged.mp4").write_bytes(damaged)
    assert not any(re.search("missing|unfinished", said) for said in _refusals(path))
