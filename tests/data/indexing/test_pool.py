from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vclr_lightning.data.indexing import pool
from vclr_lightning.data.indexing.pool import probe_all

SETTINGS = {"decode": False, "max_damaged": 0.1, "frames": None}


def children(of: int | None = None) -> list[int]:
    """Return a process's children that read videos, by default this one's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            mine = parent == (of or os.getpid())
            if mine and b"indexing.worker" in (process / "cmdline").read_bytes():
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


@pytest.mark.parametrize(
    ("signum", "times", "answer"),
    [
        (signal.SIGSEGV, 1, {"reason": "the decoder crashed (SIGSEGV)"}),
        (signal.SIGKILL, 2, None),
        (
            *(signal.SIGKILL, 3),
            {
                "reason": "the process that reads it was killed (SIGKILL), as happens where memory "
                "is short, 3 times",
                "passing": True,
            },
        ),
        (signal.SIGSTOP, 1, None),
    ],
)
def test_only_a_crash_is_the_file_s_fault(
    signum: int,
    times: int,
    answer: dict[str, object] | None,
    tmp_path: Path,
    write_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_STOPPED", 2.0)
    first, last = write_video(tmp_path / "a.mp4"), write_video(tmp_path / "c.mp4")
    pipe = tmp_path / "b.mp4"  # whoever reads a pipe waits, and can be killed meanwhile
    os.mkfifo(pipe)

    def signal_readers() -> None:
        for left in reversed(range(times)):
            with pipe.open("wb"):  # returns when the worker has opened it
                (worker,) = children()
                pipe.unlink()
                if left or answer is not None:
                    os.mkfifo(pipe)
                else:
                    pipe.write_bytes(first.read_bytes())
                os.kill(worker, signum)

    killer = threading.Thread(target=signal_readers)
    killer.start()
    answers = dict(probe_all([first, pipe, last], settings=SETTINGS, workers=1))
    killer.join()
    assert answers[last]["values"] == answers[first]["values"]
    assert answers[pipe] == (answers[first] if answer is None else answer)
    assert children() == []


def test_no_process_outlives_one_that_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "a.mp4"
    os.mkfifo(pipe)
    pid = os.fork()
    if pid == 0:
        list(probe_all([pipe], settings=SETTINGS, workers=1))
    with pipe.open("wb"):  # the worker has opened it
        (worker,) = children(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{worker}/exe").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not Path(f"/proc/{worker}/exe").exists()


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
