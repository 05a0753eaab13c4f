from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import DATASETS, listing_of_dataset, wanted_of
from vclr_lightning.data.indexing.video_files import Found

from .conftest import Write

CONFIGS = Path(__file__).parents[3] / "conf" / "data"
PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ucf", {}, "no data set 'ucf'; take one of ucf101, hmdb51"),
        ("ucf101", {"split_number": 4}, "UCF101 has splits 1 to 3, no split 4"),
        ("ucf101", {"split_number": "a"}, "no split 'a'"),
        ("sthv2", {"split_number": 2}, "has one split alone, no split 2"),
        ("activitynet", {"view": "clip"}, "no view 'clip'; take one of clips, videos"),
        ("hmdb51", {"view": "clips"}, "no view 'clips'; leave it out"),
    ],
)
def test_what_is_not_there(tmp_path: Path, name: str, given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        wanted_of(name, tmp_path, **given)  # type: ignore[arg-type]


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="official files of UCF101 are missing"):
        wanted_of("ucf101", None)
    with pytest.raises(UserError, match="does not exist; give the folder"):
        wanted_of("ucf101", tmp_path / "none")
    with pytest.raises(UserError, match="is no folder; give the folder"):
        wanted_of("ucf101", tmp_path / "file")


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder_and_a_wrong_one(name: str, tmp_path: Path) -> None:
    wanted = wanted_of(name, tmp_path)
    with pytest.raises(UserError, match="which holds nothing"):
        listing_of_dataset(name, wanted, Found([]))
    (tmp_path / "readme.md").touch()
    with pytest.raises(UserError, match=r"which holds readme\.md"):
        listing_of_dataset(name, wanted, Found([]))


def test_extracted_frames_have_no_seconds(write: Write) -> None:
    segment = {"segment": [1.0, 2.0], "label": "x"}
    content = {"database": {"a": {"subset": "training", "annotations": [segment]}}}
    folder = write("activity_net.v1-3.min.json", content)
    wanted = wanted_of("activitynet", folder, frames=True)
    with pytest.raises(UserError, match="annotates in seconds"):
        listing_of_dataset("activitynet", wanted, Found(["v_a"]))
    wanted = wanted_of("activitynet", folder, view="videos", frames=True)
    assert listing_of_dataset("activitynet", wanted, Found(["v_a"])).entries


def test_without_classes_a_window_is_one_row(write: Write) -> None:
    segments = [{"segment": [1.0, 2.0], "label": label} for label in ("x", "y")]
    content = {"database": {"a": {"subset": "training", "annotations": segments}}}
    wanted = wanted_of("activitynet", write("activity_net.v1-3.min.json", content))
    found = Found(["v_a.mp4"])
    assert len(listing_of_dataset("activitynet", wanted, found).entries) == 2
    (entry,) = listing_of_dataset("activitynet", wanted, found, with_classes=False).entries
    assert entry.label == -1


@pytest.mark.parametrize("name", DATASETS)
def test_each_has_a_configuration_and_is_on_the_page(name: str) -> None:
    assert f"dataset: {name}\n" in (CONFIGS / f"{name}.yaml").read_text()
    assert f"`{name}`" in PAGE.read_text()
