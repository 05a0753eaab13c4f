"""The published official files, where VCLR_TEST_DATA names a folder of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from vclr_lightning.data.datasets import (
    Official,
    listing_of_dataset,
    read_activitynet,
    read_hacs,
    read_hmdb51,
    read_sthv2,
    read_ucf101,
    wanted_of,
)
from vclr_lightning.data.datasets.kinetics import read_kinetics
from vclr_lightning.data.datasets.match_videos import match
from vclr_lightning.data.indexing.video_files import Found


@pytest.fixture
def folder(real_data: Path) -> Path:
    return real_data / "annotations"


def names(file: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in file.read_text().splitlines() if line.strip())


def counts(official: Official) -> dict[str, int]:
    return dict(Counter(video.split for video in official.videos))


def complete(official: Official) -> Found:
    """All files that the annotations name."""
    files = {f"{v.folder.replace(' ', '_')}/{v.stems[0]}.avi" for v in official.videos}
    return Found(sorted(files))


@pytest.mark.parametrize(
    ("number", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)]
)
def test_ucf101(folder: Path, number: int, train: int, test: int) -> None:
    official = read_ucf101(folder / "ucf101_ucfTrainTestlist", split_number=number)
    assert counts(official) == {"train": train, "test": test}
    assert official.classes == names(folder / "mmaction2" / "ucf101_label_map.txt")
    groups = {
        split: {v.group for v in official.videos if v.split == split} for split in ("train", "test")
    }
    assert not groups["train"] & groups["test"]  # 25 groups of 101 classes, never torn apart
    assert len(groups["train"] | groups["test"]) == 25 * 101
    listing = match(official, complete(official))
    assert (len(listing.entries), listing.rejected, listing.unlisted) == (13320, [], 0)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_hmdb51(folder: Path, number: int) -> None:
    official = read_hmdb51(folder / "hmdb51_testTrainMulti_7030_splits", split_number=number)
    assert counts(official) == {"train": 3570, "test": 1530, "unused": 1666}
    assert official.classes == names(folder / "mmaction2" / "hmdb51_label_map.txt")
    of_class = Counter((v.split, v.label) for v in official.videos if v.split != "unused")
    assert set(of_class.values()) == {70, 30}
    assert not any(v.group == v.stems[0] for v in official.videos)  # each name contains its source
    listing = match(official, complete(official))
    assert (len(listing.entries), listing.rejected, listing.unlisted) == (6766, [], 0)


def test_sthv2(folder: Path) -> None:
    official = read_sthv2(folder / "sthv2")
    assert counts(official) == {"train": 4, "val": 24777, "test": 27157}  # train: an excerpt
    assert official.classes == names(folder / "mmaction2" / "sthv2_label_map.txt")
    assert all(video.label >= 0 for video in official.videos)
    assert len({video.stems for video in official.videos}) == 4 + 24777 + 27157


@pytest.mark.parametrize(
    ("name", "split", "clips", "classes"),
    [
        ("kinetics-400_val.csv", "val", 19906, 400),
        ("kinetics-400_test.csv", "test", 38685, 0),
        ("kinetics-600_val.csv", "val", 30000, 600),
    ],
)
def test_kinetics(folder: Path, name: str, split: str, clips: int, classes: int) -> None:
    read = read_kinetics(folder / "kinetics" / name)
    assert dict(Counter(clip.split for clip in read.videos)) == {split: clips}
    assert len({clip.name for clip in read.videos}) == clips
    assert len(read.classes) == classes


def test_kinetics_400_and_600_in_one_folder(folder: Path) -> None:
    csvs = folder / "kinetics"
    found = Found(["--6bJUbfpnQ_000017_000027.mp4"])
    listing = listing_of_dataset("kinetics400", wanted_of("kinetics400", csvs), found)
    assert listing.classes == names(folder / "mmaction2" / "kinetics_label_map_k400.txt")
    assert [(e.split, e.label) for e in listing.entries] == [("test", -1)]
    assert len(listing.rejected) == 19906 + 38685 - 1


def test_activitynet(folder: Path) -> None:
    """The form of localisation code leaves out what could not be downloaded when it was made.

    Of 10,024, 4,926 and 5,044 videos and 15,410 and 7,654 segments that ActivityNet 1.3 has.
    """
    videos = read_activitynet(folder / "activitynet", view="videos")
    assert counts(videos) == {"train": 9649, "val": 4728, "test": 4851}
    assert videos.classes == names(folder / "mmaction2" / "activitynet_label_map.txt")
    unlabelled = Counter(v.split for v in videos.videos if v.label < 0)
    assert dict(unlabelled) == {"test": 4851}
    clips = read_activitynet(folder / "activitynet")
    assert len(clips.videos) + len(clips.rejected) == 14859 + 7293
    assert len(clips.rejected) == 12  # of no length
    listing = match(clips, complete(clips))
    again = [reject for reject in listing.rejected if reject.reason == "listed again"]
    assert (len(listing.entries), len(again)) == (14859 + 7293 - 12 - 45, 45)
    spans = read_activitynet(folder / "activitynet", view="localization")
    assert sum(len(v.spans) for v in spans.videos) == 14859 + 7293 - 12


def test_hacs_excerpts(folder: Path) -> None:
    clips = read_hacs(folder / "hacs")
    assert (len(clips.videos), clips.left_out.total(), clips.classes) == (1, 2, ("Archery",))
    segments = read_hacs(folder / "hacs", view="segments")
    assert [(v.start, v.end) for v in segments.videos] == [(5.4, 11.6), (12.6, 88.16)]
