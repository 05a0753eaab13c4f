from __future__ import annotations

import os
from pathlib import Path

import pytest

from vclr_lightning.data.indexing.files import find_videos


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_finds_videos_by_suffix_sorted_with_others_counted(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.MP4", "b/c/y.webm", "a z.avi", "b/n.txt", "n.txt", "README", ".h/x.mp4")
    touch(tmp_path, "b/._x.mp4")
    found = find_videos(tmp_path)
    assert found.paths == ["a z.avi", "b/c/y.webm", "b/x.MP4"]
    assert found.others == {".txt": 2, "README": 1, ".mp4": 1}


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "far/v.mp4", "near/w.mp4")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "loop").symlink_to(tmp_path / "near")
    assert find_videos(tmp_path / "near").paths == ["link/v.mp4", "w.mp4"]


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
