"""Manifests of the small videos, and what reads and transforms them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.readers import PyAVReader

if TYPE_CHECKING:
    from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

MakeManifest = Callable[..., Manifest]


def decode_all(path: Path) -> list[NDArray[np.uint8]]:
    """Decode a video from start to end, the plain way."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


@pytest.fixture(scope="session")
def reader() -> PyAVReader:
    return PyAVReader()


@pytest.fixture(scope="session")
def transform() -> PretrainTransform:
    from vclr_lightning.data.transforms import PretrainTransform

    return PretrainTransform(size=32)


@pytest.fixture(scope="session")
def eval_transform() -> EvalTransform:
    from vclr_lightning.data.transforms import EvalTransform

    return EvalTransform(size=32, resize=36)


@pytest.fixture(scope="session")
def make_manifest(tmp_path_factory: pytest.TempPathFactory) -> MakeManifest:
    """``make_manifest(root, num_frames={})`` lists every file of a folder of classes."""

    def make(root: Path, *, num_frames: dict[str, int] | None = None) -> Manifest:
        files = sorted(root.rglob("*.mp4"))
        classes = tuple(sorted({file.parent.name for file in files}))
        rows = [
            Row(
                path=file.relative_to(root).as_posix(),
                group=file.stem.rsplit("_c", 1)[0],
                label=classes.index(file.parent.name),
                num_frames=(num_frames or {}).get(file.stem),
                exact=file.stem in (num_frames or {}),
            )
            for file in files
        ]
        target = tmp_path_factory.mktemp("manifest") / "manifest.arrow"
        return Manifest.load(write_manifest(target, rows, Info(root=root, classes=classes)))

    return make


@pytest.fixture(scope="session")
def manifest(video_folder: Path, make_manifest: MakeManifest) -> Manifest:
    """The 18 videos of ``video_folder``."""
    return make_manifest(video_folder)


@pytest.fixture(scope="session")
def damaged(
    tmp_path_factory: pytest.TempPathFactory, video_folder: Path, make_manifest: MakeManifest
) -> Manifest:
    """The same, but ``grow_g00_c00`` is empty and ``left_g01_c00`` a text: rows 0 and 8."""
    root = tmp_path_factory.mktemp("damaged")
    for file in sorted(video_folder.rglob("*.mp4")):
        copy = root / file.relative_to(video_folder)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (root / "grow" / "grow_g00_c00.mp4").write_bytes(b"")
    (root / "left" / "left_g01_c00.mp4").write_text("no video at all\n" * 40)
    return make_manifest(root)


@pytest.fixture(scope="session")
def decode() -> Callable[[Path], list[NDArray[np.uint8]]]:
    """Decodes a video from start to end, the plain way."""
    return decode_all


def _write_at(path: Path, times: list[float], *, codec: str, b_frames: int = 0) -> Path:
    """Encode noise whose frames are shown at ``times``."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.gop_size = 5
        for time in times:
            coarse = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            frame = av.VideoFrame.from_ndarray(coarse, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def write_at() -> Callable[..., Path]:
    """``write_at(path, times, codec=, b_frames=0)`` encodes frames that are shown at ``times``."""
    return _write_at


def _list_clips(root: Path, *windows: tuple[float, float] | None, path: str) -> Manifest:
    rows = [Row(path=path, start=w and w[0], end=w and w[1]) for w in windows]
    return Manifest.load(write_manifest(root / "m.arrow", rows, Info(root=root)))


@pytest.fixture
def list_clips() -> Callable[..., Manifest]:
    """``list_clips(root, *windows, path=)`` lists parts of one file."""
    return _list_clips
