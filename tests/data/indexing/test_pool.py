from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vclr_lightning.data.indexing.pool import probe_all

SETTINGS = {"decode": False, "frames": None}


def children() -> list[int]:
    """Return this process's children that read videos."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"indexing.worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_every_file_is_answered_once(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    good = {write_video(tmp_path / f"{n}.mp4", frames=n) for n in (3, 5, 7)}
    (tmp_path / "bad.mp4").write_text("no video")
    paths = [*good, tmp_path / "bad.mp4"]
    answers = dict(probe_all(paths, settings=SETTINGS, workers=2))
    assert set(answers) == set(paths)
    for path in good:
        assert answers[path]["values"]["num_frames"] == int(path.stem)
        assert (answers[path]["values"]["width"], answers[path]["values"]["height"]) == (64, 48)
    assert answers[tmp_path / "bad.mp4"]["reason"]
    assert children() == []


def test_a_crash_costs_one_file(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    first, last = write_video(tmp_path / "a.mp4"), write_video(tmp_path / "c.mp4")
    pipe = tmp_path / "b.mp4"  # whoever reads a pipe waits, and can be killed meanwhile
    os.mkfifo(pipe)

    def kill_reader() -> None:
        with pipe.open("wb"):  # returns when the worker has opened it
            (worker,) = children()
            os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill_reader)
    killer.start()
    answers = dict(probe_all([first, pipe, last], settings=SETTINGS, workers=1))
    killer.join()
    assert answers[pipe] == {"reason": "the decoder crashed (SIGKILL)", "passing": True}
    assert answers[first]["values"] == answers[last]["values"]


def test_a_file_that_hangs_is_given_up(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    good = write_video(tmp_path / "a.mp4")
    pipe = tmp_path / "b.mp4"
    os.mkfifo(pipe)
    answers = dict(probe_all([pipe, good], settings=SETTINGS, workers=1, limit=3))
    assert answers[pipe] == {"reason": "takes longer than 3 s to read"}
    assert answers[good]["values"]["num_frames"] == 8


def test_closing_early_ends_the_processes(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    good = write_video(tmp_path / "a.mp4")
    pipe = tmp_path / "b.mp4"
    os.mkfifo(pipe)
    answers = probe_all([good, pipe], settings=SETTINGS, workers=1)
    assert next(answers)[0] == good
    answers.close()  # type: ignore[attr-defined]
    assert children() == []


def test_a_worker_that_cannot_start_is_no_bad_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(RuntimeError, match="did not start; to see why, run"):
        list(probe_all([tmp_path / "a.mp4"], settings=SETTINGS, workers=1))


def test_time_is_told_while_a_file_takes_long(tmp_path: Path) -> None:
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)
    calls: list[None] = []
    answers = probe_all(
        [pipe], settings=SETTINGS, workers=1, limit=2.5, waiting=lambda: calls.append(None)
    )
    assert [answer["reason"] for _, answer in answers] == ["takes longer than 2.5 s to read"]
    assert len(calls) >= 2
