"""Manifests of the small videos, and what reads and transforms them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

MakeManifest = Callable[..., Manifest]


class SequentialReader:
    """Decodes everything from the start."""

    def open(self, path: Path, *, num_frames: int | None = None) -> Video:
        return Video(path, num_frames)


class Video:
    def __init__(self, path: Path, num_frames: int | None) -> None:
        try:
            self.frames = decode_all(path)
        except (av.FFmpegError, IndexError) as error:
            raise VideoError(str(error)) from error
        self.num_frames = len(self.frames) if num_frames is None else num_frames

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, ranks: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        if self.num_frames != len(self.frames):
            self.num_frames = len(self.frames)
            raise FrameCountChangedError(len(self.frames))
        return [self.frames[rank] for rank in ranks]


def decode_all(path: Path) -> list[NDArray[np.uint8]]:
    """Decode a video from start to end, the plain way."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


@pytest.fixture(scope="session")
def reader() -> SequentialReader:
    return SequentialReader()


@pytest.fixture(scope="session")
def transform() -> PretrainTransform:
    return PretrainTransform(size=32)


@pytest.fixture(scope="session")
def eval_transform() -> EvalTransform:
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
