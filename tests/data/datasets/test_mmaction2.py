from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.mmaction2 import listing_of_mmaction2
from vclr_lightning.data.indexing.video_files import Found

from .conftest import Write


def test_videos(write: Write) -> None:
    write("label_map.txt", "tai chi\nyoga\n")
    write("ucf101_train_split_2_videos.txt", "none.mp4 0\n")
    write("ucf101_train_split_1_rawframes.txt", "x 5 0\n")
    write("ucf101_train_split_1_videos.txt", "a b/c 1.mp4 1\r\nmissing.avi 0 \r\na b/c 1.mp4 1")
    folder = write("ucf101_val_split_1_videos.txt", "d.mp4 0")
    listing = listing_of_mmaction2(folder, Found(["a b/c 1.mp4", "d.mp4", "e.mp4"]))
    assert listing.classes == ("tai chi", "yoga")
    assert [(e.path, e.split, e.label) for e in listing.entries] == [
        ("a b/c 1.mp4", "train", 1),
        ("d.mp4", "val", 0),
    ]
    assert [(r.path, r.reason.split(" by")[0]) for r in listing.rejected] == [
        ("missing.avi", "no such video"),
        ("a b/c 1.mp4", "listed again"),
    ]
    assert listing.unlisted == 1


def test_folders_of_frames_and_offsets(write: Write) -> None:
    folder = write("train_list_rawframes.txt", "imgs 5 2\n")
    (entry,) = listing_of_mmaction2(folder, Found(["imgs"]), frames=True).entries
    assert (entry.path, entry.label, entry.start) == ("imgs", 2, None)
    write("train_list_rawframes.txt", "imgs 2 5 1\nimgs 7 5 0\n")
    listing = listing_of_mmaction2(folder, Found(["imgs"]), view="offset", frames=True)
    assert [(e.start, e.end, e.label) for e in listing.entries] == [(2, 7, 1), (7, 12, 0)]
    assert listing.classes == ("0", "1")
    with pytest.raises(UserError, match="needs the frames' template"):
        listing_of_mmaction2(folder, Found(["imgs"]), view="offset")


@pytest.mark.parametrize("line", ["test.mp4 0 3", "imgs 5 3 5", "rawvideo_dataset 1 2 0", "a.mp4"])
def test_several_labels_are_refused(write: Write, line: str) -> None:
    folder = write("train.txt", f"{line}\n")
    with pytest.raises(UserError, match=r"line 1: expected `path .*several labels a video"):
        listing_of_mmaction2(folder, Found(["test.mp4"]))


def test_which_lists(write: Write, tmp_path: Path) -> None:
    folder = write("a_train.txt", "a.mp4 0")
    write("b_train.txt", "b.mp4 0")
    with pytest.raises(UserError, match=r"several lists of the split train: a_train\.txt, b_train"):
        listing_of_mmaction2(folder, Found(["a.mp4"]))
    (folder / "a_train.txt").rename(folder / "a_train_split_3.txt")
    (folder / "b_train.txt").unlink()
    with pytest.raises(UserError, match="no list of split 1 for videos"):
        listing_of_mmaction2(folder, Found(["a.mp4"]))
    assert listing_of_mmaction2(folder, Found(["a.mp4"]), split_number=3).entries


def test_a_class_beyond_the_label_map(write: Write) -> None:
    write("label_map_k400.txt", "one\n")
    folder = write("train.txt", "a.mp4 1\n")
    with pytest.raises(UserError, match="class 1 is not in the label map"):
        listing_of_mmaction2(folder, Found(["a.mp4"]))
