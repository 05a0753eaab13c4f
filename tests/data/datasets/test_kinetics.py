from __future__ import annotations

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.trimmed import kinetics_files, listing_of_kinetics_folder
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
    listing = listing_of_kinetics_folder(folder, found, classes=400)
    assert listing.classes == ("tai chi", "yoga")
    assert [(e.split, e.label, e.group) for e in listing.entries] == [("val", 0, "aaaaaaaaaaa")]
    assert [reject.path for reject in listing.rejected] == ["bbbbbbbbbbb_000000_000010"]


def test_another_kinetics(write: Write) -> None:
    lines = (f"class {k},{k:011d},0,10,val\n" for k in range(401))
    folder = write("val.csv", HEADER + "".join(lines))
    with pytest.raises(UserError, match="name 401 classes, which are not those of Kinetics-400"):
        listing_of_kinetics_folder(folder, Found([]), classes=400)
    (folder / "val.csv").rename(folder / "other.csv")
    with pytest.raises(UserError, match=r"no \*400\*\.csv or train\.csv"):
        listing_of_kinetics_folder(folder, Found([]), classes=400)
