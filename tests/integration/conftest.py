"""Runs of the command in processes of their own, without the seconds that imports take."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytorch_lightning.utilities import rank_zero_only

import vclr_lightning.app.run  # the parent imports what its forks need
import vclr_lightning.stages.pretrain
import vclr_lightning.train


@dataclass
class Running:
    """A run of the command, forked off this process."""

    pid: int
    log: Path

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> int:
        """Exit status; -9 and the like for a signal, as of ``subprocess``."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def output(self) -> str:
        return self.log.read_text()


Fork = Callable[..., Running]


@pytest.fixture(scope="module")
def fork() -> Iterator[Fork]:
    """``fork(arguments, folder)`` runs ``python -m vclr_lightning.train`` there."""
    running: list[Running] = []

    def begin(
        arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> Running:
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"output{(environment or {}).get('LOCAL_RANK', '')}.txt"
        pid = os.fork()
        if pid == 0:
            os.environ.update(environment or {})
            _command(arguments, folder, log)
        running.append(Running(pid, log))
        return running[-1]

    yield begin
    for process in running:
        try:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        except (ProcessLookupError, ChildProcessError):
            pass


def _command(arguments: Sequence[str], folder: Path, log: Path) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        sys.argv = ["train", *arguments]
        sys.path.insert(0, str(folder))
        rank_zero_only.rank = int(os.environ.get("LOCAL_RANK", "0"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.resetwarnings()
        vclr_lightning.train.main()
        code = 0
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="module")
def fork_ranks(fork: Fork) -> Callable[[Sequence[str], Path], list[Running]]:
    """Two ranks of one run, as a launcher such as torchrun starts them."""

    def begin(arguments: Sequence[str], folder: Path) -> list[Running]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        return [
            fork([*arguments, "trainer.devices=2"], folder, {**where, "LOCAL_RANK": str(rank)})
            for rank in range(2)
        ]

    return begin


def _logged_steps(metrics: Path) -> int:
    """Count complete rows, without that of the evaluation before the first step."""
    lines = metrics.read_text().rpartition("\n")[0].splitlines()
    other = ("step", "epoch", "val/", "start/")
    return sum(
        any(value for key, value in row.items() if not key.startswith(other))
        for row in csv.DictReader(lines)
    )


@pytest.fixture
def wait_for_rows() -> Callable[[Running, Path, int], bool]:
    """Wait until a run has logged so many steps; false where it ended before."""

    def wait(process: Running, metrics: Path, rows: int) -> bool:
        while True:
            if metrics.exists() and _logged_steps(metrics) >= rows:
                return True
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
            time.sleep(0.005)

    return wait


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The true command, from its first import on."""

    def run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        folder.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "vclr_lightning.train", *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run
