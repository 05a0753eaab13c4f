"""What a sample costs: phases of any reader, which add up."""

from __future__ import annotations

from collections import defaultdict
from cProfile import Profile
from itertools import count
from pathlib import Path
from types import MethodDescriptorType
from typing import Any

import numpy as np
import pytest
from av.codec.context import CodecContext
from PIL import Image

from vclr_lightning.bench.samples import (
    PHASES,
    TimedReader,
    TimedTransforms,
    read_shares,
    sample_cost,
)
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import ViewSpec
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.view_transforms import ViewTransforms
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import ImageFolderReader, PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import PretrainTransform


def make(folder: Path, tmp_path: Path, reader: Any = None, **options: Any) -> VideoDataset:
    frames = "img_{:05d}.jpg" if isinstance(reader, ImageFolderReader) else None
    table = ensure_manifest(
        folder, cache_dir=tmp_path / "cache", frames=frames, workers=1, show=False
    )
    return VideoDataset(
        manifest=table,
        reader=reader or PyAVReader(),
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=32),
        **options,
    )


def keys(dataset: VideoDataset) -> Any:
    return ((epoch, row) for epoch in count() for row in range(len(dataset)))


@pytest.mark.parametrize("begin_only", [False, True])
def test_phases_add_up_and_samples_stay_the_same(
    begin_only: bool, video_folder: Path, tmp_path: Path
) -> None:
    dataset = make(video_folder, tmp_path, begin_only=begin_only)
    cost = sample_cost(dataset, keys(dataset), seconds=0, batch=4)
    assert list(cost.phases) == list(PHASES)
    assert cost.cpu == pytest.approx(sum(cost.phases.values()))
    assert all(seconds >= 0 for seconds in cost.phases.values())
    assert min(cost.phases[name] for name in ("open", "decode", "augment")) > 0
    assert len(cost.keys) == 8
    assert cost.rejected == []
    name = "begun" if begin_only else "views"
    for key, sample in zip(cost.keys, cost.kept, strict=True):
        assert sample[name]["anchor"].equal(dataset[key][name]["anchor"])


def test_bad_videos_are_recorded(video_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    for file in sorted(video_folder.rglob("*.mp4"))[:4]:
        (root / file.name).write_bytes(file.read_bytes())
    dataset = make(root, tmp_path)
    dataset.manifest.path(1).write_bytes(b"")
    cost = sample_cost(dataset, keys(dataset), seconds=0, batch=2)
    assert {item["reason"] for item in cost.rejected} == {"empty file"}


def test_images_only_decode(tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "one"
    folder.mkdir(parents=True)
    for number in range(9):
        Image.new("RGB", (48, 40), (20 * number,) * 3).save(folder / f"img_{number:05d}.jpg")
    dataset = make(tmp_path / "frames", tmp_path, ImageFolderReader(template="img_{:05d}.jpg"))
    cost = sample_cost(dataset, keys(dataset), seconds=0, batch=2)
    assert cost.phases["seek"] == cost.phases["convert"] == 0
    assert cost.phases["decode"] > 0


@pytest.mark.skipif(
    not isinstance(CodecContext.decode, MethodDescriptorType),
    reason="a profiler does not see this PyAV's methods",
)
def test_reading_is_split_by_library_calls(video_folder: Path) -> None:
    profile = Profile()
    reader = TimedReader(PyAVReader(), defaultdict(float), profile)
    file = next(video_folder.rglob("*.mp4"))
    with reader.open(file) as video:
        video.read([3, 12, 15])
    shares = read_shares(profile)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_a_timed_video_is_like_the_video(video_folder: Path) -> None:
    spent: dict[str, float] = defaultdict(float)
    file = next(video_folder.rglob("*.mp4"))
    with PyAVReader().open(file) as video, TimedReader(PyAVReader(), spent).open(file) as timed:
        assert timed.num_frames == video.num_frames
        assert np.array_equal(timed.times(), video.times())
        assert all(map(np.array_equal, timed.read([4, 2]), video.read([4, 2])))
    assert set(spent) == {"open", "read"}


def test_errors_pass_through(video_folder: Path) -> None:
    spent: dict[str, float] = defaultdict(float)
    with pytest.raises(VideoError), TimedReader(PyAVReader(), spent).open(Path("none.mp4")):
        pass
    file = next(video_folder.rglob("*.mp4"))
    with pytest.raises(IndexError), TimedReader(PyAVReader(), spent).open(file) as video:
        video.read([10_000])
    specs = {"clip": ViewSpec(clips=1, frames=2)}
    transforms = TimedTransforms(ViewTransforms(specs, PretrainTransform(size=16)), spent)
    assert transforms.targets == frozenset()
    with pytest.raises(UserError, match="a clip of 0 frames"):
        transforms([], 0)
    assert spent["augment"] > 0
