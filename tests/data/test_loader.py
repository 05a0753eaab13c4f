"""Loaders: position in batches consumed, mistakes without a traceback, workers and signals."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.epochs import EpochBatches
from vclr_lightning.data.loader import BatchLoader, EpochLoader
from vclr_lightning.data.workers import WorkerOptions


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
