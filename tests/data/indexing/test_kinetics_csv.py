from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.kinetics_csv import Clip, listing_of_kinetics, read_kinetics
from vclr_lightning.data.indexing.video_files import Found

VAL = """\
label,youtube_id,time_start,time_end,split,is_cc
abseiling,0wR5jVB-WPk,417,427,val,0
"massaging person's, head",--6bJUbfpnQ,0,10,val,1
zumba,yGdQwxP5koA,83,93,validate,0
"""
TEST = "youtube_id,time_start,time_end,split\nzzy_artj1B8,210,220,test\n"


def csv_files(folder: Path, *texts: str) -> dict[Path, list[Clip]]:
    files = [folder / f"k{number}.csv" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return {file: read_kinetics(file) for file in files}


def test_reads_the_official_columns_with_and_without_labels(tmp_path: Path) -> None:
    val, test = csv_files(tmp_path, VAL, TEST).values()
    assert val == [
        Clip("0wR5jVB-WPk", 417, 427, "val", "abseiling"),
        Clip("--6bJUbfpnQ", 0, 10, "val", "massaging person's, head"),
        Clip("yGdQwxP5koA", 83, 93, "val", "zumba"),
    ]
    assert test == [Clip("zzy_artj1B8", 210, 220, "test", None)]
    assert val[1].stem == "--6bJUbfpnQ_000000_000010"


@pytest.mark.parametrize(
    "paths",
    [
        ["abseiling/0wR5jVB-WPk_000417_000427.mp4", "zumba/yGdQwxP5koA_000083_000093.mkv"],
        ["val_256/abseiling/0wR5jVB-WPk_000417_000427.mp4", "val/yGdQwxP5koA_000083_000093.mp4"],
        ["0wR5jVB-WPk_000417_000427.mp4", "yGdQwxP5koA.webm"],
    ],
)
def test_layouts(tmp_path: Path, paths: list[str]) -> None:
    listing = listing_of_kinetics(csv_files(tmp_path, VAL, TEST), Found(paths))
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
        listing = listing_of_kinetics(file, Found(sorted(paths)))
        assert [entry.path for entry in listing.entries] == paths[1:]
        assert listing.unlisted == 1


def test_a_video_in_two_splits_goes_to_the_folder_of_its_split(tmp_path: Path) -> None:
    stem = "0wR5jVB-WPk_000417_000427.mp4"
    line = "abseiling,0wR5jVB-WPk,417,427,train,0\n"
    files = csv_files(tmp_path, VAL, VAL.splitlines()[0] + "\n" + line)
    listing = listing_of_kinetics(files, Found([f"train/{stem}", f"val/{stem}"]))
    assert [(e.path, e.split) for e in listing.entries] == [
        (f"val/{stem}", "val"),
        (f"train/{stem}", "train"),
    ]
    flat = listing_of_kinetics(files, Found([stem]))
    assert [(e.path, e.split) for e in flat.entries] == [(stem, "val")]
    assert "listed again by k1.csv (train)" in {reject.reason for reject in flat.rejected}


def test_frame_folders_and_unlabelled(tmp_path: Path) -> None:
    found = Found(["val/zzy_artj1B8_000210_000220"])
    listing = listing_of_kinetics(csv_files(tmp_path, TEST), found)
    assert [(e.split, e.label) for e in listing.entries] == [("test", -1)]
    labelled = Found(["0wR5jVB-WPk_000417_000427.mp4"])
    none = listing_of_kinetics(csv_files(tmp_path, VAL), labelled, with_classes=False)
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
        csv_files(tmp_path, text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.csv"):
        read_kinetics(tmp_path / "none.csv")
