from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.kinetics import (
    kinetics_files,
    read_kinetics,
    read_kinetics_folder,
)
from vclr_lightning.data.datasets.match_videos import match
from vclr_lightning.data.datasets.registry import without_classes
from vclr_lightning.data.indexing.listing import Listing
from vclr_lightning.data.indexing.video_files import Found

from .conftest import Write

HEADER = "label,youtube_id,time_start,time_end,split\n"


def test_files_of_the_right_kinetics_are_taken(write: Write) -> None:
    for name in ("kinetics-400_val.csv", "k400_train.csv", "kinetics-600_val.csv", "val.csv"):
        folder = write(name, HEADER)
    names = [file.name for file in kinetics_files(folder, classes=400)]
    assert names == ["k400_train.csv", "kinetics-400_val.csv"]
    (folder / "kinetics-600_val.csv").unlink()
    assert [file.name for file in kinetics_files(folder, classes=600)] == ["val.csv"]


def test_clips_and_classes_with_spaces(write: Write) -> None:
    folder = write("val.csv", HEADER + "tai chi,aaaaaaaaaaa,1,11,val\r\nyoga,bbbbbbbbbbb,0,10,val")
    found = Found(["tai_chi/aaaaaaaaaaa_000001_000011.mp4"])
    listing = match(read_kinetics_folder(folder, classes=400), found)
    assert listing.classes == ("tai chi", "yoga")
    assert [(e.split, e.label, e.group) for e in listing.entries] == [("val", 0, "aaaaaaaaaaa")]
    assert [reject.path for reject in listing.rejected] == ["bbbbbbbbbbb_000000_000010"]


def test_another_kinetics(write: Write) -> None:
    lines = (f"class {k},{k:011d},0,10,val\n" for k in range(401))
    folder = write("val.csv", HEADER + "".join(lines))
    with pytest.raises(UserError, match="name 401 classes, which are not those of Kinetics-400"):
        read_kinetics_folder(folder, classes=400)
    (folder / "val.csv").rename(folder / "other.csv")
    with pytest.raises(UserError, match=r"no \*400\*\.csv or train\.csv"):
        read_kinetics_folder(folder, classes=400)


VAL = """\
label,youtube_id,time_start,time_end,split,is_cc
abseiling,0wR5jVB-WPk,417,427,val,0
"massaging person's, head",--6bJUbfpnQ,0,10,val,1
zumba,yGdQwxP5koA,83,93,validate,0
"""
TEST = "youtube_id,time_start,time_end,split\nzzy_artj1B8,210,220,test\n"


def csv_files(folder: Path, *texts: str) -> list[Path]:
    files = [folder / f"k{number}.csv" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return files


def listing_of(files: list[Path], found: Found) -> Listing:
    return match(read_kinetics(*files), found)


def test_reads_the_official_columns_with_and_without_labels(tmp_path: Path) -> None:
    official = read_kinetics(*csv_files(tmp_path, VAL, TEST))
    assert official.classes == ("abseiling", "massaging person's, head", "zumba")
    assert [(v.group, v.split, v.label, v.folder) for v in official.videos] == [
        ("0wR5jVB-WPk", "val", 0, "abseiling"),
        ("--6bJUbfpnQ", "val", 1, "massaging person's, head"),
        ("yGdQwxP5koA", "val", 2, "zumba"),
        ("zzy_artj1B8", "test", -1, ""),
    ]
    assert official.videos[0].stems == ("0wR5jVB-WPk_000417_000427", "0wR5jVB-WPk")
    assert official.videos[1].name == "--6bJUbfpnQ_000000_000010"


@pytest.mark.parametrize(
    "paths",
    [
        ["abseiling/0wR5jVB-WPk_000417_000427.mp4", "zumba/yGdQwxP5koA_000083_000093.mkv"],
        ["val_256/abseiling/0wR5jVB-WPk_000417_000427.mp4", "val/yGdQwxP5koA_000083_000093.mp4"],
        ["0wR5jVB-WPk_000417_000427.mp4", "yGdQwxP5koA.webm"],
    ],
)
def test_layouts(tmp_path: Path, paths: list[str]) -> None:
    listing = listing_of(csv_files(tmp_path, VAL, TEST), Found(paths))
    assert [entry.path for entry in listing.entries] == paths
    assert listing.classes == ("abseiling", "massaging person's, head", "zumba")
    assert [(e.label, e.split, e.group) for e in listing.entries] == [
        (0, "val", "0wR5jVB-WPk"),
        (2, "val", "yGdQwxP5koA"),
    ]
    assert [reject.path for reject in listing.rejected] == [
        "--6bJUbfpnQ_000000_000010",
        "zzy_artj1B8_000210_000220",
    ]
    assert listing.unlisted == 0


def test_class_folders_with_spaces_and_underscores(tmp_path: Path) -> None:
    file = csv_files(tmp_path, VAL.replace("abseiling", "high jump"))
    for folder in ("high jump", "high_jump"):
        paths = ["other/0wR5jVB-WPk_000417_000427.mp4", f"{folder}/0wR5jVB-WPk_000417_000427.mp4"]
        listing = listing_of(file, Found(sorted(paths)))
        assert [entry.path for entry in listing.entries] == paths[1:]
        assert listing.unlisted == 1


def test_a_video_in_two_splits_goes_to_the_folder_of_its_split(tmp_path: Path) -> None:
    stem = "0wR5jVB-WPk_000417_000427.mp4"
    line = "abseiling,0wR5jVB-WPk,417,427,train,0\n"
    files = csv_files(tmp_path, VAL, VAL.splitlines()[0] + "\n" + line)
    listing = listing_of(files, Found([f"train/{stem}", f"val/{stem}"]))
    assert [(e.path, e.split) for e in listing.entries] == [
        (f"val/{stem}", "val"),
        (f"train/{stem}", "train"),
    ]
    flat = listing_of(files, Found([stem]))
    assert [(e.path, e.split) for e in flat.entries] == [(stem, "val")]
    reasons = {reject.reason for reject in flat.rejected}
    assert "listed again by k1.csv (train)" in reasons
    assert "no such video; k0.csv lists it" in reasons


def test_frame_folders_and_unlabelled(tmp_path: Path) -> None:
    found = Found(["val/zzy_artj1B8_000210_000220"])
    listing = listing_of(csv_files(tmp_path, TEST), found)
    assert [(e.split, e.label) for e in listing.entries] == [("test", -1)]
    labelled = Found(["0wR5jVB-WPk_000417_000427.mp4"])
    none = without_classes(listing_of(csv_files(tmp_path, VAL), labelled))
    assert (none.classes, none.entries[0].label) == ((), -1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b\n", "lacks columns youtube_id"),
        (TEST.splitlines()[0], "names no videos"),
        (TEST.replace("210", "soon"), "line 2: expected youtube_id"),
        (TEST.replace("zzy_artj1B8", ""), "line 2: expected youtube_id"),
        (TEST.splitlines()[0] + "\nzzy_artj1B8,1\n", "line 2: expected youtube_id"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_kinetics(*csv_files(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.csv"):
        read_kinetics(tmp_path / "none.csv")
