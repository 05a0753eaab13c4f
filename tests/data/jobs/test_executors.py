from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.indexer import probe_file
from vclr_lightning.data.jobs import (
    Answer,
    FileResult,
    LocalProcesses,
    SerialExecutor,
    run_job,
    worker_process,
)

PICTURE = np.zeros((48, 64, 3), dtype=np.uint8)
probing = partial(probe_file, root=Path("/"), decode=False, max_damaged=0.1, frames=None)


def probe_all(paths: list[Path], executor: Executor | None = None) -> dict[Path, Answer]:
    answers, called = run_job(
        probing,
        {str(path): FileResult(str(path), -1, -1) for path in paths},
        known=lambda _: None,
        finish=lambda file, answer: (Path(file.path), answer),
        executor=executor,
        default=partial(LocalProcesses, 1),
        title="probing",
        show=False,
    )
    assert called == len(paths)
    return dict(answers)


def children(of: int | None = None) -> list[int]:
    """Return a process's workers, by default this one's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            mine = parent == (of or os.getpid())
            if mine and b"jobs.worker_process" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_every_file_is_answered_once(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    good = {write_video(tmp_path / f"{n}.mp4", [PICTURE] * n) for n in (3, 5, 7)}
    (tmp_path / "bad.mp4").write_text("no video")
    paths = [*good, tmp_path / "bad.mp4"]
    with LocalProcesses(2) as executor:
        answers = probe_all(paths, executor)
        assert 1 <= len(children()) <= 2
        assert probe_all(paths, executor) == answers  # the caller's executor is not shut down
    assert list(answers) == paths
    for path in good:
        values = answers[path].values
        assert values is not None
        assert values["num_frames"] == int(path.stem)
        assert (values["width"], values["height"]) == (64, 48)
    assert answers[tmp_path / "bad.mp4"].reason
    assert children() == []


@pytest.mark.parametrize(
    ("signum", "times", "answer"),
    [
        (signal.SIGSEGV, 1, Answer(reason="the decoder crashed (SIGSEGV)")),
        (signal.SIGKILL, 2, None),
        (
            *(signal.SIGKILL, 3),
            Answer(
                reason="the process that reads it was killed (SIGKILL), as happens where memory "
                "is short, 3 times",
                transient=True,
            ),
        ),
        (signal.SIGSTOP, 1, None),
    ],
)
def test_only_a_crash_is_the_file_s_fault(
    signum: int,
    times: int,
    answer: Answer | None,
    tmp_path: Path,
    write_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_process, "_STOPPED", 2.0)
    first, last = (
        write_video(tmp_path / "a.mp4", [PICTURE] * 8),
        write_video(tmp_path / "c.mp4", [PICTURE] * 8),
    )
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
    answers = probe_all([first, pipe, last])
    killer.join()
    assert answers[last].values == answers[first].values is not None
    assert answers[pipe] == (answers[first] if answer is None else answer)
    assert children() == []


_PROBE = """
import sys
from functools import partial
from pathlib import Path
from vclr_lightning.data.indexing.indexer import probe_file
from vclr_lightning.data.jobs import FileResult, LocalProcesses
probing = partial(probe_file, root=Path("/"), decode=False, max_damaged=0.1, frames=None)
with LocalProcesses(1) as executor:  # outside of any `if __name__ == "__main__"`
    print(executor.submit(probing, FileResult(sys.argv[1], -1, -1)).result()["num_frames"])
"""


def test_no_process_outlives_one_that_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "a.mp4"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", _PROBE, str(pipe)]
    with subprocess.Popen(command) as process, pipe.open("wb"):  # the worker has opened it
        (worker,) = children(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{worker}/exe").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not Path(f"/proc/{worker}/exe").exists()


def test_scripts_need_no_guard(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    script = tmp_path / "script.py"
    script.write_text(_PROBE)
    video = write_video(tmp_path / "a.mp4", [PICTURE] * 5)
    command = [sys.executable, str(script), str(video)]
    assert subprocess.check_output(command, text=True) == "5\n"


def test_a_file_that_hangs_is_given_up(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    good = write_video(tmp_path / "a.mp4", [PICTURE] * 8)
    pipe = tmp_path / "b.mp4"
    os.mkfifo(pipe)
    with LocalProcesses(1, limit=3) as executor:
        answers = probe_all([pipe, good], executor)
    assert answers[pipe] == Answer(reason="takes longer than 3 s to read")
    assert answers[good].values is not None
    assert answers[good].values["num_frames"] == 8


def test_an_error_ends_the_processes(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    """Also one that hangs; what came in before is kept."""
    good, pipe = write_video(tmp_path / "a.mp4", [PICTURE] * 8), tmp_path / "b.mp4"
    os.mkfifo(pipe)
    kept = []

    def full(file: FileResult, answer: Answer) -> None:
        kept.append(file.path)
        raise UserError("cannot write the journal")

    with pytest.raises(UserError, match="cannot write the journal"):
        run_job(
            probing,
            {str(path): FileResult(str(path), -1, -1) for path in (good, pipe)},
            known=lambda _: None,
            finish=full,
            executor=None,
            default=partial(LocalProcesses, 1),
            title="probing",
            show=False,
        )
    assert kept == [str(good)]
    assert children() == []


def test_a_worker_that_cannot_start_is_no_bad_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(RuntimeError, match="did not start; to see why, run"):
        probe_all([tmp_path / "a.mp4"])


def test_progress_is_updated_while_a_file_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)
    updates: list[tuple[int, str]] = []

    class Bar:
        def __enter__(self) -> Callable[[int, str], None]:
            return lambda done, note: updates.append((done, note))

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("vclr_lightning.data.jobs.job.progress_bar", lambda *_, **__: Bar())
    with LocalProcesses(1, limit=2.5) as executor:
        answers = probe_all([pipe], executor)
    assert answers[pipe].reason == "takes longer than 2.5 s to read"
    assert updates[-1] == (1, "1 failed")
    assert len(updates[:-1]) >= 2
    assert set(updates[:-1]) == {(0, "0 failed")}


@pytest.mark.parametrize("kind", ["serial", "local", "threads", "processes", "cluster"])
def test_the_interface_is_that_of_concurrent_futures(
    kind: str, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    """Any executor carries the job, also one that pickles what it sends, as a cluster's does."""
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    from multiprocessing import get_context

    executor = {
        "serial": SerialExecutor,
        "local": partial(LocalProcesses, 2),
        "threads": partial(ThreadPoolExecutor, 2),
        "processes": partial(ProcessPoolExecutor, 1, get_context("forkserver")),
        "cluster": _PickledThreads,
    }[kind]()
    paths = [write_video(tmp_path / f"{n}.mp4", [PICTURE] * n) for n in (3, 5, 7)]
    with executor:
        answers = probe_all([*paths, tmp_path / "gone.mp4"], executor)
    found = [answer.values and answer.values["num_frames"] for answer in answers.values()]
    assert found == [3, 5, 7, None]


class _PickledThreads(Executor):
    """Sends everything as bytes to another thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        import pickle

        content = pickle.dumps((fn, args, kwargs))
        future: Future[Any] = Future()

        def work() -> None:
            function, given, named = pickle.loads(content)
            future.set_result(pickle.loads(pickle.dumps(function(*given, **named))))

        threading.Thread(target=work).start()
        return future


def test_a_pool_whose_workers_are_lost_says_how_to_go_on(tmp_path: Path) -> None:
    from concurrent.futures import BrokenExecutor

    class Broken(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenExecutor("a child process ended"))
            return future

    with pytest.raises(UserError, match=r"has lost its workers .*; the same command continues"):
        probe_all([tmp_path / "a.mp4"], Broken())


def test_shutdown() -> None:
    executor = LocalProcesses(2)
    futures = [executor.submit(pow, 2, n) for n in range(20)]
    executor.shutdown()
    assert [future.result() for future in futures] == [2**n for n in range(20)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 3)
    executor = LocalProcesses(1)
    slow, waiting = executor.submit(time.sleep, 600), executor.submit(pow, 2, 3)
    executor.shutdown(cancel_futures=True)
    assert waiting.cancelled()
    assert slow.cancelled() or slow.exception() is not None
    assert children() == []
