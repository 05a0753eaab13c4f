"""The list of what could not be used: with splits, and as it was before these."""

from __future__ import annotations

from pathlib import Path

from vclr_lightning.data.jobs.rejects import Rejected, read_rejects, write_rejects

REJECTED = [
    Rejected("a.mp4", "moov atom not found", 7, 8, "train"),
    Rejected("b", "no such video", split="test"),
    Rejected("c.mp4", "listed again by list.txt, line 3"),
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "m.rejected.csv"
    write_rejects(file, reversed(REJECTED))
    assert read_rejects(file) == REJECTED
    assert [one.lost for one in REJECTED] == [True, True, False]
    write_rejects(file, [])
    assert not file.exists()
    assert read_rejects(file) == []


def test_lists_without_splits_are_read(tmp_path: Path) -> None:
    file = tmp_path / "m.rejected.csv"
    file.write_text("path,reason,size,mtime_ns\na.mp4,moov atom not found,7,8\n")
    assert read_rejects(file) == [Rejected("a.mp4", "moov atom not found", 7, 8)]
    file.write_text("path,why\na.mp4,broken\n")
    assert read_rejects(file) == []
