from __future__ import annotations

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.listing import listing_of_folder, with_groups
from vclr_lightning.data.indexing.video_files import Found
from vclr_lightning.data.manifest import Row


def listed(*paths: str, **options: bool | str) -> list[tuple[str, str | None]]:
    listing = listing_of_folder(Found(list(paths)), **options)  # type: ignore[arg-type]
    return [
        (entry.split, listing.classes[entry.label] if entry.label >= 0 else None)
        for entry in listing.entries
    ]


def test_first_folder_is_the_class() -> None:
    assert listed("run/a.mp4", "walk/deep/b.mp4", "c.mp4") == [
        ("train", "run"),
        ("train", "walk"),
        ("train", None),
    ]


def test_one_class_however_its_accents_are_spelt() -> None:
    listing = listing_of_folder(Found(["caf\u00e9/a.mp4", "cafe\u0301/b.mp4"]))
    assert listing.classes == ("caf\u00e9",)
    assert [entry.path for entry in listing.entries] == ["caf\u00e9/a.mp4", "cafe\u0301/b.mp4"]


def test_without_classes() -> None:
    assert listed("run/a.mp4", with_classes=False) == [("train", None)]


def test_split_is_given() -> None:
    assert listed("run/a.mp4", split="val") == [("val", "run")]


def test_topmost_folders_of_split_names_are_splits() -> None:
    paths = ("train_256/run/a.mp4", "val/run/b.mp4", "validation/walk/c.mp4", "test/d.mp4")
    assert listed(*paths) == [("train", "run"), ("val", "run"), ("val", "walk"), ("test", None)]


def test_a_class_that_is_called_test_is_a_class() -> None:
    assert listed("test/a.mp4", "run/b.mp4") == [("train", "test"), ("train", "run")]


def groups(*paths: str, regex: str | None = None) -> list[str]:
    return [entry.group for entry in with_groups([Row(path=path) for path in paths], regex)]


def test_names_that_say_so() -> None:
    paths = (
        "HandstandPushups/v_HandstandPushups_g01_c02.avi",
        "v_Run_g25_c07.avi",
        "zumba/--6bJUbfpnQ_000017_000027.mp4",
        "other/clip_01.mp4",
        "shoot_ball/A_shoot_out_shoot_ball_u_nm_np1_fr_goo_3.avi",
    )
    sources = ["v_HandstandPushups_g01", "v_Run_g25", "--6bJUbfpnQ", "", "A_shoot_out"]
    assert groups(*paths) == sources


def test_regex_on_the_path_without_suffix() -> None:
    paths = ("kicking/set1_seq08_id042_2.avi", "hugging/set1_seq08_id1_1.avi", "x/y.avi")
    assert groups(*paths, regex=r"set\d+_seq\d+") == ["set1_seq08", "set1_seq08", ""]
    assert groups(*paths, regex=r"^(\w+)/|$") == ["kicking", "hugging", "x"]
    assert groups(*paths, regex=r"(set\d+)_seq(\d+)")[0] == "set1/08"
    assert groups("a1.b.mp4", regex=r"b$") == ["b"]


def test_known_groups_are_kept_unless_overridden() -> None:
    entries = [Row(path="a1.mp4", group="source")]
    assert with_groups(entries)[0].group == "source"
    assert with_groups(entries, r"\d")[0].group == "1"


def test_bad_regex() -> None:
    with pytest.raises(UserError, match="is no regular expression"):
        groups("a.mp4", regex="(")
    with pytest.raises(UserError, match=r"matches no video, for example not 'a\.mp4'"):
        groups("a.mp4", regex="z")
