from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.jobs.journal import FileJournal, FileResult

GOOD = FileResult("a.mp4", 5, 7, values={"num_frames": 3, "fps": 29.97, "codec": None})
BAD = FileResult("\udcff.mp4", 1, 2, reason="no\nvideo")


def write(file: Path, *outcomes: FileResult, key: int = 1) -> None:
    with FileJournal(file, {"key": key}) as journal:
        for outcome in outcomes:
            journal.add(outcome)


def test_outcomes_come_back_across_runs(tmp_path: Path) -> None:
    file = tmp_path / "j"
    write(file, GOOD)
    write(file, BAD)
    assert FileJournal(file, {"key": 1}).read() == {"a.mp4": GOOD, "\udcff.mp4": BAD}


def test_nothing_is_written_without_an_outcome(tmp_path: Path) -> None:
    write(tmp_path / "j")
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("kept", range(30, 200, 17))
def test_a_torn_line_is_dropped_and_the_next_run_goes_on(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "j"
    write(file, GOOD, BAD)
    file.write_bytes(file.read_bytes()[:kept])
    before = FileJournal(file, {"key": 1}).read()
    assert before.items() <= {"a.mp4": GOOD, "\udcff.mp4": BAD}.items()
    write(file, BAD)
    assert FileJournal(file, {"key": 1}).read() == {**before, "\udcff.mp4": BAD}


def test_outcomes_of_another_key_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "j"
    write(file, GOOD, key=1)
    assert FileJournal(file, {"key": 2}).read() == {}
    write(file, BAD, key=2)
    assert FileJournal(file, {"key": 2}).read() == {"\udcff.mp4": BAD}
    assert FileJournal(file, {"key": 1}).read() == {}


def test_it_is_on_disk_at_once(tmp_path: Path) -> None:
    with FileJournal(tmp_path / "j", {}) as journal:
        journal.add(GOOD)
        assert FileJournal(tmp_path / "j", {}).read() == {"a.mp4": GOOD}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write(tmp_path / "file" / "j", GOOD)
