"""What a run will take, from a few of its steps: time, memory, workers and disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vclr_lightning.bench.advice import Setup
from vclr_lightning.bench.largest_batch import (
    LargestBatch,
    estimate_batch,
    fits_device,
    free_memory,
    try_batches,
)
from vclr_lightning.bench.parts import Build, Parts
from vclr_lightning.bench.reencoding import choose_sources, reencode
from vclr_lightning.bench.run_plan import Length, Plan, Queue
from vclr_lightning.bench.samples import sample_cost
from vclr_lightning.bench.step import step_cost
from vclr_lightning.bench.step_parts import step_parts
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import screen
from vclr_lightning.data.loading.workers import default_num_workers
from vclr_lightning.data.prepare import Recipe

_FLOAT = 4  # bytes


def plan(
    build: Build,
    length: Length,
    *,
    seconds: float = 30.0,
    num_workers: int | None = None,
    processes: int = 1,
    show: bool = True,
) -> Plan:
    """Take a few real steps of a run, and return what it will take.

    Args:
        build: returns the run's parts, for one process.
        length: of the run.
        seconds: to measure for, roughly.
        num_workers: of the run; ``None`` for as many as there can be.
        processes: of this machine, which share its cores.
        show: print what is being measured to standard error.

    Raises:
        UserError: the run cannot be built, or not even one video fits the device.
    """

    def report(what: str) -> None:
        if show:
            screen(stderr=True).print(f"measuring {what}", soft_wrap=True)

    parts = build({"data.num_workers": 0})
    batch, videos = parts.micro_batch(), len(parts.data.train)
    most = max(1, videos // (length.world * length.accumulate))
    report("samples, as a worker makes them")
    sample = sample_cost(parts.dataset(), parts.keys(), seconds=0.25 * seconds, batch=batch)
    trainer = parts.trainer(callbacks=[], loggers=[], directory=None)
    largest: LargestBatch | None = None
    if trainer.strategy.root_device.type == "cuda":
        report("larger and larger batches")
        largest = try_batches(fits_device(build, sample.kept), first=batch, most=most)
        if not largest.videos:
            raise UserError("not even one video fits the device; take smaller ones or fewer frames")
    report("training steps")
    fitting = batch if largest is None or largest.videos is None else min(batch, largest.videos)
    cost = step_cost(parts, sample.kept, batch=fitting, seconds=0.1 * seconds)
    timer, again = step_parts(parts, sample.kept, videos=cost.videos, seconds=0.25 * seconds)
    cost = again or cost
    if largest is None:
        per_video = timer.saved / cost.videos
        largest = estimate_batch(free=free_memory(), per_video=per_video, most=most)
    available = default_num_workers(processes)
    setup = Setup(name="", worker=sample.wall, step=cost.per_video)
    workers = min(setup.workers, available) if num_workers is None else num_workers
    steps = length.total(videos)
    # Without workers, samples are made between the steps.
    pace = setup.rate(workers) if workers else 1 / (sample.wall + cost.per_video)
    return Plan(
        device=cost.device,
        videos=videos,
        batch=batch,
        measured=cost.videos,
        step=cost.seconds,
        parts=timer.seconds(),
        flops=timer.flops / cost.videos,
        sample=sample.wall,
        needed=setup.workers,
        workers=workers,
        available=available,
        memory=cost.memory,
        largest=largest,
        length=length,
        steps=steps,
        epoch_steps=length.steps_per_epoch(videos),
        seconds=steps * length.batch / (pace * length.world),
        disk=_disk(parts, timer.checkpoint, length, sample.keys, seconds=0.5 * seconds, say=report),
        queues=[*_queues(parts, length, steps=steps)],
        rejected=[f"{item['path']}: {item['reason']}" for item in sample.rejected],
    )


def _disk(
    parts: Parts,
    checkpoint: int,
    length: Length,
    keys: list[tuple[int, int]],
    *,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, int]:
    """Return the bytes of checkpoints, features and, where some can be re-encoded, all videos."""
    table: Any = parts.data.train
    found = {"checkpoints": length.checkpoints * checkpoint}
    if (features := getattr(parts.module, "num_features", None)) is not None:
        found["features"] = len(table) * int(features) * _FLOAT
    try:
        sources = choose_sources(table, [row for _, row in keys], seconds=seconds)
        say("the size of re-encoded videos")
        with tempfile.TemporaryDirectory(prefix="vclr-plan-") as folder:
            _, ratio = reencode(table, sources, Recipe(), Path(folder))
    except UserError:
        return found
    if (column := getattr(table, "column", None)) is not None:
        found["prepared"] = round(ratio * float(column("size").sum()))
    return found


def _queues(parts: Parts, length: Length, *, steps: int) -> Iterator[Queue]:
    """Yield the queues, and whether one will hold more keys than an epoch has."""
    once = len(parts.data.train) // length.batch * length.batch
    objectives: Any = getattr(parts.module, "objectives", None)
    for name, objective in objectives.items() if hasattr(objectives, "items") else ():
        size = getattr(getattr(objective, "queue", None), "size", None)
        each = getattr(objective, "keys_per_video", None)
        if size is not None and each is not None:
            keys, run = once * each, steps * length.batch * each
            yield Queue(name, size, keys, stale=min(size, run) > keys)
