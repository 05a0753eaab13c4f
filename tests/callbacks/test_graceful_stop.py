from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from vclr_lightning.callbacks.graceful_stop import GracefulStop, StopRequested

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning", "ignore:The .*dataloader. does not have many workers"
)


class Signal(Callback):
    """Sends this process a signal in the midst of a step."""

    def __init__(self, signum: int, *, step: int) -> None:
        self.signum, self.step = signum, step

    def on_before_optimizer_step(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_stops_after_the_step_saved_and_continues(
    fit: Any,
    tmp_path: Path,
    signum: int,
    status: int,
    accumulate: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = {"every_n_steps": 100, "accumulate_grad_batches": accumulate}
    before = signal.getsignal(signum)
    stop = GracefulStop(then="the same command continues")
    with pytest.raises(StopRequested) as caught:
        fit(tmp_path / "a", stop, Signal(signum, step=4), **options)
    assert caught.value.code == status
    assert signal.getsignal(signum) == before
    assert "the same command continues" in capfd.readouterr().err
    saved = torch.load(tmp_path / "a" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5
    fit(tmp_path / "a", GracefulStop(), **options)
    fit(tmp_path / "b", GracefulStop(), **options)
    assert (tmp_path / "a/metrics.csv").read_text() == (tmp_path / "b/metrics.csv").read_text()
    a, b = (torch.load(tmp_path / f / "last.ckpt", weights_only=True) for f in ("a", "b"))
    for name, value in b["state_dict"].items():
        assert torch.equal(a["state_dict"][name], value)


def test_the_second_signal_aborts_at_once(fit: Any, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        twice = [Signal(signal.SIGINT, step=4), Signal(signal.SIGTERM, step=4)]
        try:
            fit(tmp_path, GracefulStop(), *twice, every_n_steps=2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    # The checkpoint before is whole.
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_signal_that_comes_twice_at_once_is_one_request(fit: Any, tmp_path: Path) -> None:
    # As from a process group, and from a parent that passes it on.
    twice = [Signal(signal.SIGTERM, step=4), Signal(signal.SIGTERM, step=4)]
    with pytest.raises(StopRequested):
        fit(tmp_path, GracefulStop(), *twice)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


class SignalAtTheEnd(Callback):
    def on_train_end(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_after_the_last_step_is_for_whoever_is_next(fit: Any, tmp_path: Path) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: seen.append(signum))
    try:
        _, trainer = fit(tmp_path, GracefulStop(), SignalAtTheEnd())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.global_step == 15
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 15
    assert seen == [signal.SIGTERM]


class SignalAtTheStart(Callback):
    def on_train_epoch_start(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_before_the_first_step_nothing_is_saved_and_nothing_said_of_it(
    fit: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StopRequested):
        fit(tmp_path, GracefulStop(), SignalAtTheStart())
    assert not (tmp_path / "last.ckpt").exists()
    assert "Stopped by SIGTERM after step 0: nothing saved" in capfd.readouterr().err


def test_processes_that_the_trainer_launched_end_without_failure() -> None:
    assert StopRequested(signal.SIGTERM, local_rank=1).code == 0


def test_trains_outside_the_main_thread_and_says_what_that_means(
    fit: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(1) as pool:
        _, trainer = pool.submit(fit, tmp_path, GracefulStop()).result()
    assert trainer.global_step == 15
    assert "outside the main thread" in caplog.text
