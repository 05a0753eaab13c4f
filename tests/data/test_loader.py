"""Loaders: position in batches consumed, mistakes without a traceback, workers and signals."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.loading.loader import BatchLoader, EpochLoader
from vclr_lightning.data.loading.workers import WorkerOptions


class Trouble(Dataset[dict[str, Any]]):
    """Gives pictures; at row 5 something happens to the process that loads."""

    def __init__(self, trouble: Callable[[], object] = lambda: None, pixels: int = 1000) -> None:
        self.trouble, self.pixels = trouble, pixels

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row == 5:
            self.trouble()
        return {"x": torch.zeros(self.pixels, dtype=torch.uint8), "row": row, "valid": True}


class SignalledWhileStarting(Dataset[dict[str, Any]]):
    """Is sent a signal where a new process reads it, as by one to the process group."""

    def __setstate__(self, state: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"row": row, "valid": True}


class Keys(Dataset[dict[str, Any]]):
    """Gives back the key, and the process that was asked."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, row = key
        if row < 0:
            raise UserError(f"row {row} is wrong")
        return {"epoch": epoch, "row": row, "process": os.getpid(), "valid": True}


def make(workers: int = 0, **changes: Any) -> EpochLoader:
    batches = EpochBatches(13, **{"batch_size": 2, "seed": 1, **changes})
    return EpochLoader(Keys(), batches, WorkerOptions(num_workers=workers))


def rows(loader: BatchLoader) -> list[list[int]]:
    return [batch["row"].tolist() for batch in loader]


@pytest.fixture(scope="module")
def expected() -> dict[int, list[list[int]]]:
    loader, epochs = make(), {}
    for epoch in range(4):
        loader.set_epoch(epoch)
        epochs[epoch] = rows(loader)
    return epochs


@given(epoch=st.integers(0, 3), batch=st.integers(0, 6))
def test_resuming_gives_exactly_the_rest(
    expected: dict[int, list[list[int]]], epoch: int, batch: int
) -> None:
    first = make()
    first.set_epoch(epoch)
    handed_out = iter(first)
    for _ in range(batch):
        next(handed_out)
    state = first.state_dict()
    assert state == {"epoch": epoch, "batch": batch, "batches": 6}
    again = make()
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert rows(again) == expected[epoch][batch:]
    assert again.state_dict() == {"epoch": epoch, "batch": 6, "batches": 6}
    again.set_epoch(epoch + 1)
    assert again.state_dict() == {"epoch": epoch + 1, "batch": 0, "batches": 6}
    assert rows(again) == expected.get(epoch + 1, rows(again))
    assert len(again) == 6


def test_the_position_counts_what_was_handed_out_not_what_was_prefetched(
    expected: dict[int, list[list[int]]],
) -> None:
    loader = make(workers=2)
    for consumed, batch in enumerate(loader, start=1):
        assert loader.state_dict()["batch"] == consumed
        assert batch["row"].tolist() == expected[0][consumed - 1]
        if consumed == 3:
            break
    # The same workers go on with another epoch, and in the middle of one.
    loader.load_state_dict({"epoch": 2, "batch": 4, "batches": 6})
    assert rows(loader) == expected[2][4:]
    loader.set_epoch(3)
    assert rows(loader) == expected[3]
    loader.close()


def test_asking_for_an_iterator_changes_nothing(expected: dict[int, list[list[int]]]) -> None:
    loader = make()
    loader.load_state_dict({"epoch": 1, "batch": 2, "batches": 6})
    unused = [iter(loader) for _ in range(3)]
    assert rows(loader) == expected[1][2:]
    del unused


def test_workers_stay_and_are_ended_on_close() -> None:
    loader = make(workers=1)
    processes = {int(pid) for _ in range(2) for batch in loader for pid in batch["process"]}
    assert len(processes) == 1
    assert os.getpid() not in processes
    (worker,) = processes
    assert alive(worker)
    loader.close()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(worker)
    with pytest.raises(RuntimeError, match="the loader was closed"):
        next(iter(loader))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_training_process(
    expected: dict[int, list[list[int]]], number: signal.Signals
) -> None:
    loader = make(workers=1)
    batches = iter(loader)
    seen = [next(batches)]
    os.kill(int(seen[0]["process"][0]), number)
    seen += list(batches)
    assert [batch["row"].tolist() for batch in seen] == expected[0]
    loader.close()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_leave_signals_alone_while_they_start() -> None:
    options = WorkerOptions(num_workers=1, start_method="spawn")
    assert rows(BatchLoader(SignalledWhileStarting(), [[7]], options)) == [[7]]


def _myself(signum: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), signum)


@pytest.mark.parametrize(
    ("trouble", "said", "persistent"),
    [
        (_myself(signal.SIGKILL), r"was killed \(SIGKILL\), as happens where memory is", True),
        (_myself(signal.SIGBUS), r"crashed \(SIGBUS\), as .* shared memory .* --shm-size", False),
        (lambda: os._exit(0), "ended with status 0", True),
        (_myself(signal.SIGSTOP), r"timeout=2 s: loading process 2 of 2 .* is stopped", False),
        (lambda: time.sleep(100), "timeout=2 s: .* give a larger data.timeout", True),
    ],
)
def test_workers_that_are_lost_end_the_wait(
    trouble: Callable[[], object], said: str, persistent: bool
) -> None:
    options = WorkerOptions(num_workers=2, start_method="fork", timeout=2, persistent=persistent)
    loader = BatchLoader(Trouble(trouble), [[row] for row in range(12)], options)
    begun = time.monotonic()
    with pytest.raises(UserError, match=said):
        rows(loader)
    loader.close()
    assert time.monotonic() - begun < 30
    assert multiprocessing.active_children() == []


def test_a_wait_does_not_count_while_the_process_itself_is_stopped() -> None:
    pid = os.fork()
    if pid == 0:
        options = WorkerOptions(num_workers=1, start_method="fork", timeout=3)
        loader = BatchLoader(Trouble(lambda: time.sleep(1)), [[5], [0]], options)
        os._exit(rows(loader) != [[5], [0]])
    time.sleep(0.5)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(pid, signal.SIGCONT)
    assert os.waitpid(pid, 0)[1] == 0


def _small_shared_memory() -> None:
    """Give this process a ``/dev/shm`` of 1 MB of its own; exits with 77 where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    private, recursive, new_mounts = 1 << 18, 1 << 14, 0x20000
    if libc.unshare(new_mounts):
        os._exit(77)
    libc.mount(b"none", b"/", None, private | recursive, None)
    if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m"):
        os._exit(77)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (300_000, "/dev/shm is too small: .* need 1.1 MB, and 0.9 MB are free; .* --shm-size=3m"),
        # All fit as such, but a batch that was handed out takes room as well.
        (250_000, "/dev/shm is too small: .* need 1.0 MB, and 0.2 MB .* data.num_workers=0"),
    ],
)
def test_shared_memory_that_is_too_small(pixels: int, said: str, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        _small_shared_memory()
        options = WorkerOptions(num_workers=2, start_method="fork", timeout=20)
        keys = [[row] for row in range(12)]
        try:
            list(BatchLoader(Trouble(pixels=pixels), keys, options))
        except UserError as error:
            (tmp_path / "said").write_text(str(error))
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("mounts are not permitted")
    assert re.match(said, (tmp_path / "said").read_text())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_arrives_as_one_sentence(workers: int) -> None:
    batches = [[(0, 1)], [(0, 2), (0, -3)]]
    loader = iter(BatchLoader(Keys(), batches, WorkerOptions(num_workers=workers)))
    assert next(loader)["row"].tolist() == [1]
    with pytest.raises(UserError) as caught:
        next(loader)
    assert str(caught.value) == "row -3 is wrong"


def test_another_number_of_batches_is_refused() -> None:
    with pytest.raises(UserError, match="after batch 4 of 12 in epoch 1, but an epoch now has 6"):
        make().load_state_dict({"epoch": 1, "batch": 4, "batches": 12})


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_global_generator(workers: int) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loader = make(workers)
    rows(loader)
    loader.close()
    assert torch.equal(torch.get_rng_state(), before)
