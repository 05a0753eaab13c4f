"""A small network and data, for callbacks that have to work with anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from vclr_lightning.callbacks.restoring import restoring
from vclr_lightning.core.lightning import Callback, LightningModule, Trainer
from vclr_lightning.loggers.csv import CSVLogger

collect_ignore = ["online_ranks.py"]  # a script of its own


class Loader:
    """Five batches an epoch, told apart by epoch and position; knows what was consumed."""

    def __init__(self, batches: int = 5) -> None:
        self.batches, self.epoch, self.start, self.consumed = batches, 0, 0, 0

    @property
    def sampler(self) -> Loader:
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.consumed, self.start = self.start, 0
        for index in range(self.consumed, self.batches):
            self.consumed += 1
            generator = torch.Generator().manual_seed(1000 * self.epoch + index)
            x = torch.randn(4, 3, generator=generator)
            yield {"x": x, "video_id": torch.arange(4) + 4 * index}

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.start = state["epoch"], state["batch"]


class Module(LightningModule):
    """Dropout (global randomness), momentum and a schedule: all has to continue exactly."""

    def __init__(self, *, score: str = "val/score", loader: Any = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        self.loader = loader or Loader()
        self.score = score

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.net(batch["x"]).square().mean()
        self.log("train/loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log(self.score, self.net[0].weight.detach().mean())

    def train_dataloader(self) -> Any:
        return self.loader

    def configure_optimizers(self) -> Any:
        # As schedules do; it makes Lightning build the loader before it reads a checkpoint.
        assert self.trainer.estimated_stepping_batches > 0
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.9)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


Fit = Callable[..., tuple[Module, Trainer]]


@pytest.fixture
def fit() -> Fit:
    """Train three epochs of five batches in ``folder``, from its last checkpoint if it has one."""

    def run(
        folder: Path,
        *callbacks: Callback,
        every_n_steps: int = 2,
        module: Module | None = None,
        checkpoint: dict[str, Any] | None = None,
        **trainer: Any,
    ) -> tuple[Module, Trainer]:
        torch.manual_seed(0)
        module = module or Module()
        saving = ResumableCheckpoint(
            directory=folder,
            every_n_steps=every_n_steps,
            monitor="val/score",
            **({"min_minutes": 0} | (checkpoint or {})),
        )
        options = {
            "max_epochs": 3,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
        }
        fitting = Trainer(
            callbacks=[*callbacks, saving],
            logger=CSVLogger(directory=folder),
            plugins=[AtomicCheckpointIO()],
            **(options | trainer),
        )
        last = folder / "last.ckpt"
        with restoring(fitting):
            fitting.fit(module, ckpt_path=str(last) if last.exists() else None)
        return module, fitting

    return run


@pytest.fixture
def make_module() -> type[Module]:
    return Module


@pytest.fixture
def make_loader() -> type[Loader]:
    return Loader


collect_ignore = ["online_ranks.py"]  # a script of its own
