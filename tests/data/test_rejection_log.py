"""The log of rejected videos: file, share, and state across a resume."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Rejection
from vclr_lightning.data.loading.rejection_log import RejectionLog, too_many


def bad(video: int, reason: str = "cut off") -> Rejection:
    return {"video_id": video, "path": f"a folder/{video},x.mp4", "reason": reason}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_rows_are_written_as_they_come_and_once(tmp_path: Path) -> None:
    file = tmp_path / "run" / "rejected.csv"
    log = RejectionLog(file, num_videos=1000)
    assert log.add([], seen=torch.arange(4)) == []
    assert not file.exists()
    assert log.add([bad(7), bad(8, 'says "no"')], seen=[]) == [bad(7), bad(8, 'says "no"')]
    assert log.add([bad(8), bad(9)], seen=np.array([1])) == [bad(9)]
    expected = [bad(7), bad(8, 'says "no"'), bad(9)]
    assert rows(file) == [{k: str(v) for k, v in item.items()} for item in expected]
    assert (len(log), log.attempted, log.share) == (3, 7, 3 / 7)


def test_what_is_read_again_leaves_the_list(tmp_path: Path) -> None:
    file = tmp_path / "rejected.csv"
    log = RejectionLog(file, num_videos=20, max_share=0.1)
    log.add([bad(1), bad(2), bad(3)], seen=range(4, 21))
    with pytest.raises(UserError, match="3 of 20"):
        log.check()
    assert log.add([bad(3, "still")], seen=[2]) == []
    log.check()
    assert [row["video_id"] for row in rows(file)] == ["1", "3"]
    assert (len(log), log.attempted) == (2, 20)
    again = RejectionLog(None, num_videos=20)
    again.load_state_dict(log.state_dict())
    assert [item["video_id"] for item in again.state_dict()["rejected"]] == [1, 3]
    assert log.add([bad(2, "once more"), bad(4)], seen=torch.tensor([1, 3, 4])) == [
        bad(2, "once more")  # and 4 was read by another rank
    ]
    assert [row["reason"] for row in rows(file)] == ["once more"]
    assert log.add([], seen=[2]) == []
    assert rows(file) == []


def test_failures_that_pass_end_no_run_however_long() -> None:
    """0.5 % of all readings fail at random, for 60 epochs; a twentieth of the videos may."""
    rng, log = np.random.default_rng(0), RejectionLog(None, num_videos=2000, max_share=0.05)
    for _ in range(60):
        for part in rng.permutation(2000).reshape(-1, 50):
            fails = rng.random(50) < 0.005
            log.add([bad(int(video)) for video in part[fails]], seen=part[~fails])
            log.check()
    assert log.attempted == 2000
    assert log.share < 0.02


def test_a_new_run_replaces_an_old_file(tmp_path: Path) -> None:
    file = tmp_path / "rejected.csv"
    file.write_text("something old")
    RejectionLog(file, num_videos=10).add([bad(1)], seen=[])
    assert [row["video_id"] for row in rows(file)] == ["1"]


def test_resuming_puts_the_file_back(tmp_path: Path) -> None:
    file = tmp_path / "rejected.csv"
    log = RejectionLog(file, num_videos=1000)
    log.add([bad(1), bad(2)], seen=[5, 6])
    state = log.state_dict()
    log.add([bad(3)], seen=[7])
    again = RejectionLog(file, num_videos=1000)
    again.load_state_dict(state)
    assert [row["video_id"] for row in rows(file)] == ["1", "2"]
    assert (len(again), again.attempted) == (2, 4)
    assert again.add([bad(2), bad(4)], seen=[]) == [bad(4)]
    assert [row["video_id"] for row in rows(file)] == ["1", "2", "4"]


def test_the_state_is_plain(tmp_path: Path) -> None:
    log = RejectionLog(None, num_videos=10)
    log.add([bad(1)], seen=torch.tensor([3]))
    torch.save(log.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert loaded["rejected"] == log.state_dict()["rejected"]
    assert loaded["seen"].tolist() == [1, 3]


def test_past_the_share_it_stops_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "rejected.csv"
    log = RejectionLog(file, num_videos=100, max_share=0.05)
    log.add([bad(k) for k in range(5)], seen=range(5, 100))
    log.check()
    log.add([bad(5)], seen=[])
    with pytest.raises(
        UserError, match=r"6 of 100 videos.*6\.0%, allowed are 5\.0%.*rejected\.csv"
    ):
        log.check()


def test_a_part_must_be_clearly_above() -> None:
    def judge(rejected: int, attempted: int) -> bool:
        return too_many(rejected, attempted, max_share=0.05, num_videos=1000)

    assert not judge(1, 3)
    assert not judge(19, 19)
    assert judge(20, 20)
    # 100 drawn from videos of which 5 % are bad: 5 expected, rarely more than 11.
    assert not judge(11, 100)
    assert judge(12, 100)
    assert not judge(50, 1000)
    assert judge(51, 1000)
    assert too_many(1, 3, max_share=0.05, num_videos=3)
    assert too_many(1, 20, max_share=0, num_videos=1000)
    assert not too_many(1000, 1000, max_share=1, num_videos=1000)


def test_chance_alone_seldom_stops_a_run() -> None:
    """Bad videos exactly at the limit, in random order: hardly any run is stopped on the way."""
    rng, stopped = np.random.default_rng(0), 0
    for _ in range(200):
        found = np.cumsum(rng.permutation(1000) < 50)
        stopped += any(
            too_many(int(found[k - 1]), k, max_share=0.05, num_videos=1000)
            for k in range(8, 1001, 8)
        )
    assert stopped <= 10


def test_wrong_share_and_unwritable_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"max_rejected_share=1\.5"):
        RejectionLog(None, num_videos=10, max_share=1.5)
    (tmp_path / "file").write_text("")
    log = RejectionLog(tmp_path / "file" / "rejected.csv", num_videos=10)
    with pytest.raises(UserError, match="cannot write"):
        log.add([bad(1)], seen=[])
