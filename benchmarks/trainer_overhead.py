"""What Lightning's trainer costs over a bare loop with the same module and batches.

    python -m benchmarks.trainer_overhead

Two copies of one module take turns on the same batch: the trainer's data loader runs one step of
the bare loop before it yields each batch, so both see the same machine at the same time. A trainer
step is the time from yielding a batch until the next one is requested.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np

LIMIT = 1.03


def _module(size: int):
    import torch

    from vclr_lightning.models import TorchvisionResNet
    from vclr_lightning.modules import PretrainModule
    from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder, VideoLevel

    torch.manual_seed(0)
    return PretrainModule(
        backbone=TorchvisionResNet(name="resnet18"),
        objectives={
            "inter": partial(InterFrame, queue_size=4096),
            "intra": IntraFrame,
            "video": partial(VideoLevel, queue_size=4096),
            "order": partial(TemporalOrder, num_segments=3),
        },
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=1e-4),
    )


def _batch(batch: int, size: int, index: int):
    import torch

    generator = torch.Generator().manual_seed(index)

    def pictures(n: int):
        return torch.randint(
            0, 256, (batch, n, 3, 1, size, size), dtype=torch.uint8, generator=generator
        )

    identity = torch.arange(3).repeat(batch, 1)
    return {
        "views": {"anchor": pictures(3), "positive": pictures(3), "second": pictures(1)},
        "rows": {
            "x1": torch.zeros(batch, 1, dtype=torch.int64),
            "x2": torch.ones(batch, 1, dtype=torch.int64),
            "x3": torch.full((batch, 1), 2),
        },
        "targets": {
            "anchor_order": identity,
            "positive_order": identity,
            "shuffled": torch.zeros(batch, dtype=torch.int64),
        },
        "frame_indices": {},
        "video_id": torch.arange(batch) + index * batch,
        "group_id": torch.arange(batch) + index * batch,
        "label": torch.full((batch,), -1),
        "index": torch.arange(batch),
        "rejected": [],
    }


class _BareLoop:
    """The loop that one would write by hand around the module's methods."""

    def __init__(self, module) -> None:
        self.module = module.train()
        self.optimizer = module.configure_optimizers()
        if isinstance(self.optimizer, dict):
            self.optimizer = self.optimizer["optimizer"]

    def step(self, batch, index: int) -> None:
        self.module.on_train_batch_start(batch, index)
        loss = self.module.training_step(batch, index)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class _TakingTurns:
    """Feeds the trainer, and runs the bare loop's step on each batch before it does."""

    def __init__(self, bare: _BareLoop, steps: int, batch: int, size: int) -> None:
        self.bare, self.steps, self.batch, self.size = bare, steps, batch, size
        self.bare_seconds: list[float] = []
        self.trainer_seconds: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict]:
        for index in range(self.steps):
            batch = _batch(self.batch, self.size, index)
            start = time.process_time()
            self.bare.step(batch, index)
            middle = time.process_time()
            yield batch
            end = time.process_time()
            self.bare_seconds.append(middle - start)
            self.trainer_seconds.append(end - middle)


def measure(*, steps: int, batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds of CPU time of each step, ``(bare loop, trainer)``."""
    import pytorch_lightning as pl
    import torch

    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    bare_module = _module(size)
    bare_module.log = bare_module.log_dict = lambda *_, **__: None  # without a trainer
    turns = _TakingTurns(_BareLoop(bare_module), steps, batch, size)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(_module(size), train_dataloaders=turns)
    warm = 5
    return np.array(turns.bare_seconds[warm:]), np.array(turns.trainer_seconds[warm:])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=205)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args(argv)
    bare, trainer = measure(steps=args.steps, batch=args.batch, size=args.size)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(bare), (2000, len(bare)))
    ratios = np.median(trainer[picks], axis=1) / np.median(bare[picks], axis=1)
    bound = float(np.quantile(ratios, 0.95))
    print(f"steps {len(bare)}, bare step {1000 * np.median(bare):.0f} ms of CPU time")
    print(
        f"trainer / bare loop: {np.median(trainer) / np.median(bare):.4f}, "
        f"95 % bound {bound:.4f}, at most {LIMIT}: {'ok' if bound <= LIMIT else 'MISSED'}"
    )
    return 0 if bound <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
