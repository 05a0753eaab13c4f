"""Training on a device that is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from lightning_utilities.core.apply_func import apply_to_collection
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.modules.input_pixels import _constant
from vclr_lightning.stages.shared.trainer import LogEveryEpoch

sys.path.insert(0, str(Path(__file__).parent))
from fake_cuda import CUDA, Event, FakeCuda, set_gradients


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The device, entered; what torch asks the driver about is answered without one."""
    device = FakeCuda()
    empty, generator = torch.empty, torch.Generator

    def pinned_empty(*shape: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        made = empty(*shape, **options)
        return device.pin(made) if pin_memory else made

    monkeypatch.setattr(torch, "empty", pinned_empty)
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: device.pin(x.clone()))
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.zeros(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    monkeypatch.setattr(Tensor, "backward", set_gradients)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    _constant.cache_clear()
    with device:
        yield device
    _constant.cache_clear()  # a real device may follow


CONTROL = "control"


@pytest.fixture
def ranks(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The first of two ranks, whose tensors go by NCCL and whose control messages by gloo.

    What the other rank sends has no values; its control messages are those of this rank.
    """

    def new_group(*_: Any, backend: str, **__: Any) -> str:
        assert backend == "gloo"
        return CONTROL

    def all_gather_object(values: list[Any], value: Any, group: Any = None) -> None:
        assert group == CONTROL
        values[:] = [value] * len(values)

    def all_reduce(x: Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None) -> None:
        if group == CONTROL:
            assert x.device.type == "cpu"
            assert op == dist.ReduceOp.MAX
        else:
            reduce(x, op=op, group=group)

    reduce = dist.all_reduce
    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    with _disable_current_modes():
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield cuda
    dist.destroy_process_group()


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.fixture
def pretraining(
    video_folder: Path,
    indexed: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, Any]]:
    """``pretraining("objective=moco", ...)``: what the stage is given, for tiny videos."""

    def build(*options: str) -> dict[str, Any]:
        cfg = composed(
            *("image_size=32", "queue_size=40", "batch_size=4", "epochs=1", "init=none"),
            *("data.num_workers=0", "data.holdout=0.2", f"data.root={video_folder}"),
            f"data.cache_dir={indexed(tmp_path)}/vclr_lightning",
            *(f"run_dir={tmp_path}/run", "+optim.optimizer.foreach=true", "monitor=null"),
            *("callbacks.online=null", "+callbacks.progress.line_every_s=0"),
            *options,
        )
        with _disable_current_modes():
            return dict(instantiate(cfg.stage.run).keywords)

    # What the loading processes do is quicker without a look at every operation.
    read = VideoDataset.__getitem__
    monkeypatch.setattr(VideoDataset, "__getitem__", _disable_current_modes()(read))
    return build


@pytest.fixture
def train(cuda: FakeCuda) -> Callable[..., None]:
    """Steps on the device without a trainer, of which all but the first may not wait.

    Of batches whose tensors are pinned, as by a loader for a GPU.
    """

    def run(module: Any, batches: Iterable[Any], data: Any = None) -> None:
        cuda.strict, data = False, data or LightningDataModule()
        optimizer = module.to(CUDA).configure_optimizers()
        for number, batch in enumerate(batches):
            cuda.strict = number > 0
            pinned = apply_to_collection(batch, Tensor, cuda.pin)
            out = module.training_step(data.transfer_batch_to_device(pinned, CUDA, 0), number)
            optimizer.zero_grad()
            (out["loss"] if isinstance(out, dict) else out).backward()
            optimizer.step()
        assert cuda.strict
        cuda.strict = False

    return run


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None: ...


class _Strategy(SingleDeviceStrategy):
    def teardown(self) -> None: ...  # fake weights cannot return to the host


class Watch(Callback):
    """Lets the first step wait, which checks its batch, and those whose values are logged."""

    def __init__(self, device: FakeCuda) -> None:
        self.device, self.steps = device, 0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.device.strict = batch_idx > 0 and not trainer._logger_connector.should_update_logs
        self.steps += self.device.strict

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.device.strict = False

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.device.strict = False


@pytest.fixture
def fit(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """Three steps on the device, of which the second is logged and the third may not wait.

    The batches are pinned, as by a loader for a GPU.
    """
    move = VideoDataModule.transfer_batch_to_device

    def transfer(data: Any, batch: Any, device: torch.device, number: int = 0) -> Any:
        return move(data, apply_to_collection(batch, Tensor, cuda.pin), device, number)

    monkeypatch.setattr(VideoDataModule, "transfer_batch_to_device", transfer)
    monkeypatch.setattr(ResumableCheckpoint, "_save", lambda *_, **__: None)
    # It asks the device for the number of batches.
    monkeypatch.setattr("pytorch_lightning.loops.fit_loop.has_len_all_ranks", lambda *_, **__: True)

    def run(run: dict[str, Any], *callbacks: Callback, **options: Any) -> Trainer:
        watch = Watch(cuda)
        cuda.strict = False
        own = [callback for callback in run["callbacks"].values() if callback is not None]
        trainer = Trainer(
            accelerator=_Accelerator(),
            strategy=_Strategy(CUDA),
            devices=1,
            callbacks=[watch, *own, LogEveryEpoch(), *callbacks],
            logger=[one for one in run["loggers"].values() if one is not None],
            max_steps=3,
            log_every_n_steps=2,
            use_distributed_sampler=False,
            enable_model_summary=False,
            **options,
        )
        try:
            trainer.fit(run["module"], datamodule=run["data"])
        finally:
            cuda.strict = False
        assert watch.steps == 1
        return trainer

    return run
