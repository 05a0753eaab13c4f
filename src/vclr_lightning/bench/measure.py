"""Measure a run: samples, steps, both together, and what would help."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from vclr_lightning.bench.advice import Option, advise
from vclr_lightning.bench.helping import Helping
from vclr_lightning.bench.parts import Build, Parts
from vclr_lightning.bench.result import Bench
from vclr_lightning.bench.samples import sample_cost
from vclr_lightning.bench.steps import RunCost, run_cost, step_cost
from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.loading.epochs import EpochBatches, epoch_order, micro_batch_size
from vclr_lightning.data.loading.workers import default_num_workers


def bench(
    build: Build,
    *,
    seconds: float = 60.0,
    augment: str | None = None,
    num_workers: int | None = None,
    processes: int = 1,
    variants: bool = True,
    show: bool = True,
) -> Bench:
    """Measure what a run's samples and steps take, and what would help.

    Args:
        build: gives the run's parts, for one process.
        seconds: to measure for, roughly; a machine or a batch that is too slow for it is measured
            for longer, or on less, which is told.
        augment: ``data.augment`` of the run.
        num_workers: of the run; ``None`` for as many as there can be.
        processes: of this machine, which share its cores.
        variants: whether to measure what would help.
        show: show progress bars.

    Raises:
        UserError: the run cannot be built, or whatever a part of it finds wrong.
    """
    with tempfile.TemporaryDirectory(prefix="vclr-bench-") as name:
        return _Bench(Path(name), build, seconds, processes, show).run(
            augment, num_workers, variants=variants
        )


class _Bench:
    def __init__(
        self, folder: Path, build: Build, seconds: float, processes: int, show: bool
    ) -> None:
        self.folder = folder
        self.build = build
        self.seconds = seconds
        self.show = show
        self.available = default_num_workers(processes)
        self.begin = time.monotonic()

    def run(self, augment: str | None, num_workers: int | None, *, variants: bool) -> Bench:
        parts = self.build({"data.num_workers": 0})
        self.begin = time.monotonic()  # indexing, where it had to be, is done
        batch = _micro_batch(parts)
        with progress_bar("samples, as a worker makes them", show=self.show) as update:
            sample = sample_cost(
                parts.dataset(),
                _keys(parts),
                seconds=0.2 * self.seconds,
                update=update,
                batch=batch,
            )
        with progress_bar("training steps", show=self.show) as update:
            step = step_cost(
                parts,
                sample.samples_kept,
                batch=batch,
                seconds=0.15 * self.seconds,
                directory=self.folder,
                update=update,
            )
        now = Option(name="as it is", worker=sample.wall, step=step.per_video)
        workers = min(now.workers, self.available) if num_workers is None else num_workers
        run, reason = self._verify(now, workers, batch)
        helping = Helping(self.folder, self.build, self.seconds, show=self.show)
        measured = helping.measure(parts, sample, step, augment) if variants else []
        options = [m.option for m in measured if m.option is not None]
        return Bench(
            sample=sample,
            step=step,
            now=now,
            available=self.available,
            run=run,
            run_reason=reason,
            variants=measured,
            advice=advise(
                now,
                options,
                available=self.available,
                on_cpu=step.device.startswith("CPU"),
                wait=run.wait if run is not None and run.workers >= now.workers else 0.0,
            ),
            videos=len(parts.data.train),
            seconds=time.monotonic() - self.begin,
        )

    def _verify(self, now: Option, workers: int, batch: int) -> tuple[RunCost | None, str]:
        """Train with so many workers, where that does not take too long."""
        takes = 3 * batch * max(now.worker, now.step)  # each worker's batch, three times over
        if takes > self.seconds:
            return None, f"would take {takes:.0f} s: give --seconds {2 * takes:.0f}"
        with progress_bar(f"training with {workers} workers", show=self.show) as update:
            found = run_cost(
                self.build({"data.num_workers": workers}),
                workers=workers,
                batch=batch,
                seconds=max(2 * batch * now.worker, 0.15 * self.seconds),
                directory=self.folder,
                update=update,
            )
        return found, "" if found else "the run has too few batches"


def _micro_batch(parts: Parts) -> int:
    """Return the videos of a micro-batch.

    Raises:
        UserError: the batch cannot be shared out, or there are too few videos for it.
    """
    trainer: Any = parts.trainer(callbacks=[], loggers=[], directory=None)
    accumulate: int = trainer.accumulate_grad_batches
    size = parts.data.batch_size
    EpochBatches(len(parts.data.train), batch_size=size, accumulate=accumulate)
    return micro_batch_size(size, accumulate=accumulate)


def _keys(parts: Parts) -> Iterator[tuple[int, int]]:
    """The samples of training in their order, epoch after epoch."""
    for epoch in count():
        order = epoch_order(len(parts.data.train), seed=parts.data.seed, epoch=epoch)
        yield from ((epoch, int(row)) for row in order)
