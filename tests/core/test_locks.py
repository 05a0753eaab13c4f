"""Locks and temporary files of processes that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import clear_leftovers, replacing
from vclr_lightning.core.locks import RUN_LOCK, in_use


def forked(work: Callable[[], None], there: Path) -> int:
    """Begin ``work`` in another process, which never ends by itself, and wait for a file."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(1)
    while not there.exists():
        time.sleep(0.005)
    return pid


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_folder_is_one_process_s_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def hold() -> None:
        with in_use(folder):
            if os.fork() == 0:  # as of a loading process: it inherits nothing
                (tmp_path / "there").touch()
                time.sleep(3)
                os._exit(0)
            time.sleep(1000)

    pid = forked(hold, tmp_path / "there")
    with pytest.raises(UserError, match=f"process {pid} on .*, since .*name="), in_use(folder):
        raise AssertionError
    killed(pid)
    assert (folder / RUN_LOCK).exists()
    with in_use(folder):
        assert (folder / RUN_LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not (folder / RUN_LOCK).exists()


def test_what_a_kill_leaves_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "last.backbone.safetensors") as sink:
            sink.write(b"half")
            sink.flush()
            (tmp_path / "there").touch()
            time.sleep(1000)

    pid = forked(write, tmp_path / "there")
    (left,) = tmp_path.glob(".last.backbone.safetensors.*")
    names = [".best.ckpt.abcd_123", ".x.tar.json.abcd_123", ".a.csv.0123abcd.part"]
    kept = [".gitignore", ".hidden.settings", "a.csv.0123abcd.part", ".features.part"]
    for name in names + kept:
        (tmp_path / name).touch()
    (tmp_path / ".folder.0123abcd.part").mkdir()
    clear_leftovers(tmp_path)
    assert left.exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {
        *kept,
        *("there", left.name, ".folder.0123abcd.part"),
    }
    killed(pid)
    with in_use(tmp_path):  # as a run begins
        assert not left.exists()
    clear_leftovers(tmp_path / "nowhere")
