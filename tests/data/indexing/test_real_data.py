"""Real folders and the official list files, where VCLR_TEST_DATA names a folder of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from vclr_lightning.data.indexing import ListingSource, ensure_manifest, index_videos
from vclr_lightning.data.indexing.lists import listing_of_lists, read_list

DATA = Path(os.environ.get("VCLR_TEST_DATA", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("VCLR_TEST_DATA"), reason="VCLR_TEST_DATA names no folder of real videos"
)


def test_ut_interaction_by_folder_and_by_lists(tmp_path: Path) -> None:
    root, lists = DATA / "ut_interaction", DATA / "annotations" / "splits_suggested"
    regex = r"set\d+_seq\d+"
    folder = ensure_manifest(root, group_regex=regex, cache_dir=tmp_path, show=False)
    assert (len(folder), folder.num_classes, len(set(folder.group_ids))) == (120, 6, 20)
    assert folder.has_labels
    assert Counter(folder.labels.tolist()) == dict.fromkeys(range(6), 20)
    listed = ensure_manifest(
        root,
        train_list=lists / "ut_interaction_train.txt",
        val_list=lists / "ut_interaction_test.txt",
        group_regex=regex,
        cache_dir=tmp_path,
        show=False,
    )
    train, val = listed.split("train"), listed.split("val")
    assert (len(train), len(val)) == (83, 37)
    assert not set(train.group_ids) & set(val.group_ids)
    assert sorted(listed.classes) == list(folder.classes)
    for i in range(len(listed)):
        assert listed.classes[listed.label(i)] == listed.path(i).parent.name


@pytest.mark.parametrize("name", ["clips", "clips_derived"])
def test_every_file_is_a_row_or_rejected_with_a_reason(name: str, tmp_path: Path) -> None:
    root = DATA / name
    done = index_videos(
        ListingSource(root=root).listing(show=False),
        root=root,
        out=tmp_path / "m.arrow",
        show=False,
    )
    manifest = done.manifest
    rows = {manifest.path(i).name for i in range(len(manifest))}
    rejected = {reject.path: reject.reason for reject in done.rejected}
    videos = {path.name for path in root.iterdir() if path.suffix != ".tsv"}
    assert rows | set(rejected) == videos
    assert not rows & set(rejected)
    assert all(rejected.values())
    unusable = {"bad_audio_only.mp4", "bad_text.mp4", "bad_truncated_no_moov.mp4"}
    assert set(rejected) >= (unusable | {"bad_zero_bytes.mp4"}) & videos
    assert all(path.startswith(("bad_", "decord__corrupted")) for path in rejected)


def test_ucf101_lists() -> None:
    folder = DATA / "annotations" / "ucf101_ucfTrainTestlist"
    train, test = folder / "trainlist01.txt", folder / "testlist01.txt"
    assert (len(read_list(train)), len(read_list(test))) == (9537, 3783)
    listing = listing_of_lists({"train": [train], "test": [test]}, folder)
    names = dict(line.split() for line in (folder / "classInd.txt").read_text().splitlines())
    assert listing.classes == tuple(names[str(number)] for number in range(1, 102))
    assert min(entry.label for entry in listing.entries) == 0
    assert not listing.rejected
