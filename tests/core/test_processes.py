"""Processes end with those that started them; signals reach who is to answer them, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.processes import PARENT, run_command
from vclr_lightning.core.stopping import StopRequested, signals_blocked, stopped_by_signals
from vclr_lightning.data.loading.loader import BatchLoader
from vclr_lightning.data.loading.workers import StartMethod, WorkerOptions

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def _written(file: Path) -> int:
    """Wait for a process to write its number."""
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "the process wrote nothing"
        time.sleep(0.01)
    return int(file.read_text())


def _forked(function: Callable[[], object]) -> int:
    """Call a function in a forked process, which ends with it, and return its number."""
    pid = os.fork()
    if pid == 0:
        try:
            # Of a fork server that another test has started, this process is no parent.
            forkserver._forkserver.__init__()  # type: ignore[misc]
            function()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def _assert_ends(process: int, *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while Path(f"/proc/{process}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@linux
@pytest.mark.parametrize("moment", ["at its start", "at work"])
def test_a_command_ends_with_who_runs_it(moment: str, tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from vclr_lightning.core.processes import follow_parent
def write(name):
    Path({str(tmp_path)!r}, name).write_text(str(os.getpid()) + chr(10))
write("at its start")
while {moment == "at its start"} and not Path({str(tmp_path)!r}, "on").exists():
    time.sleep(0.01)
follow_parent()
write("at work")
time.sleep(60)
"""
    pid = _forked(lambda: run_command([sys.executable, "-c", code]))
    command = _written(tmp_path / moment)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    (tmp_path / "on").touch()
    _assert_ends(command)


class Waits(Dataset[dict[str, Any]]):
    """Writes which process loads, and waits, stopped if so wanted."""

    def __init__(self, file: Path, *, stopped: bool) -> None:
        self.file, self.stopped = file, stopped

    def __getitem__(self, row: int) -> dict[str, Any]:
        self.file.write_text(f"{os.getpid()}\n")
        if self.stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)
        return {"valid": True}


@linux
@pytest.mark.parametrize(("method", "stopped"), [("fork", True), ("forkserver", False)])
def test_workers_end_with_who_loads(method: StartMethod, stopped: bool, tmp_path: Path) -> None:
    dataset = Waits(tmp_path / "worker", stopped=stopped)
    options = WorkerOptions(num_workers=1, start_method=method)
    pid = _forked(lambda: list(BatchLoader(dataset, [[0]], options)))
    worker = _written(tmp_path / "worker")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _assert_ends(worker)


def _signal_soon(signum: int, *, times: int = 1) -> None:
    def send() -> None:
        time.sleep(0.5)
        for _ in range(times):
            os.kill(os.getpid(), signum)

    threading.Thread(target=send).start()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "answer", ["sys.exit(0)", "sys.exit(143)", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_a_signal_is_passed_on_and_ends_both(
    signum: int, answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signum)
    code = f"""
import os, signal, sys, time
signal.signal({int(signum)}, lambda *_: {answer})
time.sleep(30)
"""
    _signal_soon(signum)
    with pytest.raises(StopRequested) as stopped:
        run_command([sys.executable, "-c", code])
    assert stopped.value.code == 128 + signum
    assert signal.getsignal(signum) == before
    assert ("stopped by" in capfd.readouterr().err) == ("143" not in answer)


def test_a_command_that_is_killed_says_so() -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(
        UserError, match=r"its command was killed \(SIGKILL\), as happens where mem"
    ):
        run_command([sys.executable, "-c", code])


def test_signals_wait_until_processes_have_been_started(capfd: pytest.CaptureFixture[str]) -> None:
    done = []

    def start() -> None:
        with signals_blocked():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("started")
        done.append("went on")

    with pytest.raises(StopRequested), stopped_by_signals("go on"):
        start()
    assert done == ["started"]
    assert capfd.readouterr().err == "\nstopped by SIGTERM; go on\n"


def test_a_rank_leaves_a_signal_to_who_started_it() -> None:
    code = """
import signal
from vclr_lightning.core import processes
from vclr_lightning.core.stopping import stopped_by_signals
processes.follow_parent()
with stopped_by_signals("go on", leader=processes.leader):
    signal.raise_signal(signal.SIGTERM)
    print("waits")
"""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: got.append(signum))
    try:
        rank = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {PARENT: str(os.getpid()), "LOCAL_RANK": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (rank.returncode, rank.stdout, rank.stderr) == (0, "waits\n", "")
    assert got == [signal.SIGTERM]


def test_the_second_signal_ends_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            with stopped_by_signals("go on"):
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)  # the same request
                    os.kill(os.getpid(), signal.SIGINT)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGINT
