"""Training samples: their content, computed a second time, and what becomes of bad videos."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.loading.dataset import TrainingSample, VideoDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, OpenVideo, VideoReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler

Decode = Callable[[Path], list[NDArray[np.uint8]]]
Make = Callable[..., VideoDataset]


class Watched:
    """A reader that notes what is read."""

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader
        self.reads: list[list[int]] = []

    @contextmanager
    def open(self, path: Path, *, num_frames: int | None = None) -> Iterator[Any]:
        with self.reader.open(path, num_frames=num_frames) as video:
            yield WatchedVideo(video, self.reads)


class WatchedVideo:
    def __init__(self, video: OpenVideo, reads: list[list[int]]) -> None:
        self.video, self.reads = video, reads

    @property
    def num_frames(self) -> int:
        return self.video.num_frames

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        self.reads.append([int(index) for index in frame_indices])
        return self.video.read(frame_indices)


@pytest.fixture
def make(manifest: Manifest, reader: VideoReader, transform: ClipTransform) -> Make:
    def build(**changes: Any) -> VideoDataset:
        given: dict[str, Any] = {
            "manifest": manifest,
            "reader": reader,
            "samplers": {"tuples": TupleSampler()},
            "transform": transform,
            "seed": 5,
        }
        return VideoDataset(**{**given, **changes})

    return build


def same(one: TrainingSample, two: TrainingSample) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        return bool(np.array_equal(a, b))

    return equal(one, two)


@pytest.mark.parametrize(
    "sampler",
    [TupleSampler(), TupleSampler(num_segments=1), TupleSampler(num_segments=2, frames_per_clip=5)],
)
def test_a_sample_is_what_its_keys_say(
    make: Make, decode: Decode, manifest: Manifest, transform: ClipTransform, sampler: TupleSampler
) -> None:
    sample = make(samplers={"mine": sampler})[3, 7]
    frames = decode(manifest.path(7))
    drawn = sampler(len(frames), numpy_generator(5, 3, 7, 0, "draw", "mine"))
    assert set(sample["views"]) == {name for name, spec in sampler.views.items() if spec.clips}
    for name, pictures in sample["views"].items():
        assert pictures.dtype == torch.uint8
        assert pictures.is_contiguous()
        for clip, indices in enumerate(drawn.frame_indices[name].tolist()):
            rng = numpy_generator(5, 3, 7, 0, "augment", name, clip)
            assert torch.equal(pictures[clip], transform([frames[r] for r in indices], rng))
        assert np.array_equal(sample["frame_indices"][name], drawn.frame_indices[name])
    for kind in ("rows", "targets"):
        for name, values in getattr(drawn, kind).items():
            assert np.array_equal(sample[kind][name], values)  # type: ignore[literal-required]
    described = (sample["video_id"], sample["group_id"], sample["label"], sample["index"])
    assert described == (manifest.video_id(7), manifest.group_id(7), manifest.label(7), 7)
    assert sample["valid"]
    assert sample["rejected"] == []


def test_each_clip_is_augmented_by_itself(make: Make) -> None:
    sample = make()[0, 4]
    x1 = int(sample["rows"]["x1"][0])
    assert not torch.equal(sample["views"]["second"][0], sample["views"]["anchor"][x1])


def test_samples_depend_on_seed_epoch_and_index_alone(make: Make) -> None:
    first = make()[2, 3]
    assert same(first, pickle.loads(pickle.dumps(make()))[2, 3])
    assert not same(first, make()[3, 3])
    assert not same(first, make(seed=6)[2, 3])


def test_only_needed_views_are_read_and_at_one_go(make: Make, reader: VideoReader) -> None:
    watched = Watched(reader)
    part = make(reader=watched, views={"positive"})[1, 2]
    whole = make()[1, 2]
    assert watched.reads == [whole["frame_indices"]["positive"].ravel().tolist()]
    assert set(part["views"]) == {"positive"}
    assert torch.equal(part["views"]["positive"], whole["views"]["positive"])
    assert same(part, {**whole, **{k: part[k] for k in ("views", "frame_indices")}})  # type: ignore[typeddict-item, literal-required]

    watched.reads.clear()
    make(reader=watched)[1, 2]
    (read,) = watched.reads
    assert len(read) == 7


def test_a_wrong_frame_count_is_drawn_for_again(
    make: Make, make_manifest: Callable[..., Manifest], video_folder: Path, decode: Decode
) -> None:
    (file,) = video_folder.rglob("left_g00_c01.mp4")
    count = len(decode(file)) + 2
    promised = make_manifest(video_folder, num_frames={"left_g00_c01": count})
    row = next(i for i in range(18) if promised.name(i) == "left_g00_c01")
    assert promised.num_frames(row) == count
    pairs = [(make(manifest=promised)[epoch, row], make()[epoch, row]) for epoch in range(8)]
    assert any(same(one, two) for one, two in pairs)  # whenever a frame too many was drawn
    assert not any(one["rejected"] for one, _ in pairs)


def test_a_file_cut_after_it_was_indexed_is_rejected(
    make: Make, make_manifest: Callable[..., Manifest], video_folder: Path, decode: Decode
) -> None:
    (file,) = video_folder.rglob("left_g00_c01.mp4")
    count = 2 * len(decode(file))
    promised = make_manifest(video_folder, num_frames={"left_g00_c01": count})
    row = next(i for i in range(18) if promised.name(i) == "left_g00_c01")
    sample = make(manifest=promised)[0, row]
    (rejection,) = sample["rejected"]
    assert sample["video_id"] != row
    assert rejection["reason"].startswith(f"truncated: it had {count} frames")


def test_a_bad_video_is_replaced_the_same_each_time(make: Make, damaged: Manifest) -> None:
    data = make(manifest=damaged)
    sample = data[0, 8]
    assert sample["index"] == 8
    assert sample["video_id"] not in (0, 8)
    row = sample["video_id"]
    assert (sample["group_id"], sample["label"]) == (damaged.group_id(row), damaged.label(row))
    (rejection,) = sample["rejected"]
    assert rejection["video_id"] == 8
    assert rejection["path"] == str(damaged.path(8))
    assert rejection["reason"]
    assert "\n" not in rejection["reason"]
    assert same(sample, make(manifest=damaged)[0, 8])
    assert len({data[epoch, 8]["video_id"] for epoch in range(12)}) > 3


def test_a_replacement_may_be_bad_too(make: Make, damaged: Manifest) -> None:
    data = make(manifest=damaged, views={"second"})
    samples = (data[epoch, 0] for epoch in range(1000))
    twice = next(sample for sample in samples if len(sample["rejected"]) == 2)
    assert [item["video_id"] for item in twice["rejected"]] == [0, 8]
    assert twice["video_id"] not in (0, 8)


def test_when_nothing_can_be_read_it_says_so(
    make: Make, make_manifest: Callable[..., Manifest], tmp_path: Path
) -> None:
    for name in "abcdefghijkl":
        (tmp_path / f"{name}.mp4").write_text("text")
    with pytest.raises(UserError, match=r"c\.mp4 and the 9 videos tried in its place cannot be"):
        make(manifest=make_manifest(tmp_path))[0, 2]
    for name in "defghijkl":
        (tmp_path / f"{name}.mp4").unlink()
    with pytest.raises(UserError, match=r"c\.mp4 and the 2 videos tried in its place"):
        make(manifest=make_manifest(tmp_path))[0, 2]


def test_a_missing_file_is_a_bad_video(
    make: Make, make_manifest: Callable[..., Manifest], video_folder: Path, tmp_path: Path
) -> None:
    for name in ("grow_g00_c00", "grow_g00_c01"):
        copy = tmp_path / f"{name}.mp4"
        copy.write_bytes((video_folder / "grow" / copy.name).read_bytes())
    manifest = make_manifest(tmp_path)
    (tmp_path / "grow_g00_c00.mp4").unlink()
    sample = make(manifest=manifest)[0, 0]
    assert sample["video_id"] == 1
    assert "does not exist" in sample["rejected"][0]["reason"]


def test_without_replacement_the_sample_is_blank(make: Make, damaged: Manifest) -> None:
    data = make(manifest=damaged, replace=False)
    blank, good = data[0, 8], data[0, 1]
    assert not blank["valid"]
    assert good["valid"]
    assert blank["video_id"] == 8
    assert len(blank["rejected"]) == 1
    for name, pictures in good["views"].items():
        assert blank["views"][name].shape == pictures.shape
        assert blank["frame_indices"][name].shape == good["frame_indices"][name].shape
