"""Three LightningModules as other projects write them, their data, and a trainer.

Nothing here knows this package, but for the choice of Lightning's name (`core/lightning.py`). To be
imported as ``foreign_modules``, also by scripts that several processes run.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from torch.utils.data import DataLoader, Dataset, IterableDataset

from vclr_lightning.core.lightning import Callback, LightningModule, Trainer

SIZE = 20  # samples: five batches of four
CLASSES = 3
WIDTH = 8  # of the features


def encoder() -> nn.Sequential:
    """Images ``(B, 3, 4, 4)`` to features ``(B, 8)``; BatchNorm and dropout have states."""
    convolution = nn.Conv2d(3, WIDTH, 3, padding=1)
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(convolution, nn.BatchNorm2d(WIDTH), *pooled, nn.Dropout(0.2))


class Classifier(LightningModule):
    """A batch is ``{"image", "label", "name"}`` with strings as names; a schedule by steps."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.encoder(image))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = cross_entropy(self(batch["image"]), batch["label"])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class SimCLR(LightningModule):
    """A batch is a list of two views; the schedule asks for the length of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.projector = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        z = normalize(self.projector(self.encoder(torch.cat(batch))), dim=1)
        similarity = (z @ z.T / 0.5).fill_diagonal_(-1e9)
        half = len(z) // 2
        partner = torch.cat([torch.arange(half, 2 * half), torch.arange(half)])
        loss = cross_entropy(similarity, partner.to(z.device))
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        steps = self.trainer.estimated_stepping_batches
        length = int(steps) if steps not in (-1, float("inf")) else 100
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Adversarial(LightningModule):
    """A batch is a tensor of images; two optimizers, stepped by the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = encoder()
        self.critic = nn.Linear(WIDTH, 1)
        self.generator = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        of_generator, of_critic = self.optimizers()
        drawn = self.generator(torch.randn(len(batch), 4, device=self.device))
        for name, optimizer, images, target in (
            ("generator", of_generator, drawn, 1.0),
            ("critic", of_critic, torch.cat([drawn.detach(), batch]), None),
        ):
            self.toggle_optimizer(optimizer)
            score = self.critic(self.encoder(images))[:, 0]
            wanted = torch.ones_like(score)
            if target is None:
                wanted[: len(batch)] = 0
            loss = binary_cross_entropy_with_logits(score, wanted)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            self.log(f"train/{name}", loss, prog_bar=True)

    def configure_optimizers(self) -> Any:
        critic = [*self.encoder.parameters(), *self.critic.parameters()]
        return [
            torch.optim.Adam(self.generator.parameters(), lr=0.01),
            torch.optim.Adam(critic, lr=0.02),
        ]


MODULES: dict[str, type[LightningModule]] = {
    "classifier": Classifier,
    "simclr": SimCLR,
    "adversarial": Adversarial,
}


def sample(kind: str, index: int) -> Any:
    """Return one sample for a module; its class is seen in its brightness."""
    label = index % CLASSES
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(index)) + label
    if kind == "classifier":
        return {"image": images[0], "label": label, "name": f"sample-{index:02d}"}
    return [images[0], images[1]] if kind == "simclr" else images[0]


class Samples(Dataset[Any]):
    """The samples of a module by index."""

    def __init__(self, kind: str, size: int = SIZE) -> None:
        self.kind, self.size = kind, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return sample(self.kind, index)


class Stream(IterableDataset[Any]):
    """The samples of a module one after the other, without a length."""

    def __init__(self, kind: str, size: int = SIZE) -> None:
        self.kind, self.size = kind, size

    def __iter__(self) -> Iterator[Any]:
        return (sample(self.kind, index) for index in range(self.size))


class NoisySamples(Samples):
    """Draws from the global random generators for each sample, as augmentation does."""

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(()) + random.random() + np.random.rand()
        found = super().__getitem__(index)
        if isinstance(found, dict):
            return found | {"image": found["image"] + noise}
        return [view + noise for view in found] if isinstance(found, list) else found + noise


class OwnSeed(Callback):
    """Gives each rank random numbers of its own."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(10 + trainer.global_rank)
        random.seed(20 + trainer.global_rank)


class Signals(Callback):
    """Sends SIGTERM to the last rank in the given batch of a run."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        last = trainer.global_rank == trainer.world_size - 1
        if trainer.fit_loop.total_batch_idx == self.batch and last:
            os.kill(os.getpid(), signal.SIGTERM)


def make_loader(form: str, kind: str, **options: Any) -> Any:
    """Return the ``plain`` (shuffling), ``sequential``, ``stateful`` or ``iterable`` loader."""
    options = {"batch_size": 4, **options}
    if form == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(Samples(kind), shuffle=True, **options)
    if form == "iterable":
        return DataLoader(Stream(kind), **options)
    return DataLoader(Samples(kind), shuffle=form == "plain", **options)


def make_trainer(*callbacks: Any, **options: Any) -> Trainer:
    """Return a trainer of two epochs on the CPU that shows nothing."""
    given = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return Trainer(callbacks=list(callbacks), **(given | options))
