from __future__ import annotations

import os
from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.video_files import find_videos


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_finds_videos_by_suffix_sorted_with_others_counted(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.MP4", "b/c/y.webm", "a z.avi", "b/n.txt", "n.txt", "README", ".h/x.mp4")
    touch(tmp_path, "b/._x.mp4")
    found = find_videos(tmp_path)
    assert found.paths == ["a z.avi", "b/c/y.webm", "b/x.MP4"]
    assert found.others == {".txt": 2, "README": 1}


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "far/v.mp4", "near/w.mp4")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "loop").symlink_to(tmp_path / "near")
    assert find_videos(tmp_path / "near").paths == ["link/v.mp4", "w.mp4"]


def test_a_folder_of_two_names_is_there_under_both(tmp_path: Path) -> None:
    touch(tmp_path, "far/run/v.mp4", "root/train/.keep")
    for split in ("train", "val"):
        (tmp_path / "root" / split).mkdir(exist_ok=True)
        (tmp_path / "root" / split / "run").symlink_to(tmp_path / "far" / "run")
    (tmp_path / "far" / "run" / "up").symlink_to(tmp_path / "root")
    assert find_videos(tmp_path / "root").paths == ["train/run/v.mp4", "val/run/v.mp4"]


def test_what_cannot_be_looked_at_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "a/v.mp4", "b/w.mp4")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "b" / "deep").symlink_to("x" * 256)
    found = find_videos(tmp_path)
    assert found.paths == ["a/v.mp4", "b/w.mp4"]
    reasons = {one.path: one.reason for one in found.rejected}
    assert reasons.keys() == {"itself", "b/deep"}
    assert reasons["itself"].startswith("cannot be looked at: Too many levels")
    with pytest.raises(UserError, match="cannot list"):
        find_videos(tmp_path / "a" / "v.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "a/v.mp4", "b/w.mp4")
    (tmp_path / "b").chmod(0)
    found = find_videos(tmp_path)
    (tmp_path / "b").chmod(0o700)
    assert found.paths == ["a/v.mp4"]
    assert [one.path for one in found.rejected] == ["b/"]


def test_folders_of_the_system_are_no_classes(tmp_path: Path) -> None:
    system = ("$RECYCLE.BIN", "System Volume Information", "@eaDir", ".Trashes", "__MACOSX")
    touch(tmp_path, "run/a.mp4", *(f"{name}/b.mp4" for name in system), "run/@eaDir/a.mp4")
    assert find_videos(tmp_path).paths == ["run/a.mp4"]


def test_suffixes_of_video_are_taken_or_named(tmp_path: Path) -> None:
    taken = ("dv", "rm", "nut", "apng", "mpe", "qt", "3gpp", "MK3D", "m1v")
    touch(tmp_path, *(f"a.{suffix}" for suffix in taken), "b.yuv", "c.YUV", "d.r3d", "e.txt")
    found = find_videos(tmp_path)
    assert len(found.paths) == len(taken)
    assert {why.split()[0]: n for why, n in found.left_out.items()} == {".yuv": 2, ".r3d": 1}


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    touch(tmp_path, "run/v1/img_00001.jpg", "run/v1/img_00002.jpg", "run/v2/img_00001.jpg")
    touch(tmp_path, "run/v2/thumb.jpg", "run/none/thumb.jpg", "img_00001.jpg")
    found = find_videos(tmp_path, frames="img_{:05d}.jpg")
    assert found.paths == ["run/v1", "run/v2"]
    assert found.others == {".jpg": 2}


def test_progress_counts(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    counts: list[int] = []
    find_videos(tmp_path, progress=counts.append)
    assert counts == [0, 1, 2]


def test_names_that_are_no_text_are_found(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system refuses such names")
    assert len(find_videos(tmp_path).paths) == 1
