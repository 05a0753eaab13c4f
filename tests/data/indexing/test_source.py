from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ListingSource


def test_empty_folders_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for \.mp4, .*; found no files"):
        ListingSource(root=tmp_path).listing(show=False)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"found 1 \.txt"):
        ListingSource(root=tmp_path).listing(show=False)
    with pytest.raises(UserError, match=r"looked for img_\{:05d\}\.jpg; found 1 \.txt"):
        ListingSource(root=tmp_path, frames="img_{:05d}.jpg").listing(show=False)


def test_bad_patterns_fail_before_the_folder_is_walked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no regular expression"):
        ListingSource(root=tmp_path, group_regex="(")
    with pytest.raises(UserError, match="one number in it"):
        ListingSource(root=tmp_path, frames="img.jpg")


def test_kinetics_without_any_of_its_videos(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    csv = tmp_path / "k.csv"
    csv.write_text("youtube_id,time_start,time_end,split\nzzy_artj1B8,210,220,test\n")
    with pytest.raises(UserError, match="none of the 1 listed videos is in"):
        ListingSource(root=tmp_path, kinetics=[csv]).listing(show=False)


def test_descriptions(tmp_path: Path) -> None:
    assert ListingSource(root=tmp_path).describe() == "folder"
    lists = {"train": [Path("a.txt")], "val": [Path("b.txt")]}
    assert ListingSource(root=tmp_path, lists=lists).describe() == "lists train=a.txt, val=b.txt"
