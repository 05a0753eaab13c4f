"""A plan of a run as values, and as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from vclr_lightning.bench.largest_batch import LargestBatch
from vclr_lightning.bench.step_parts import STEP_PARTS
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import PlainTable
from vclr_lightning.data.prepare.prepared import size_text

if TYPE_CHECKING:
    from rich.table import Table


_SUSTAINED = 1e14  # operations a second, to give an idea


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a run is, and over how many processes.

    Attributes:
        epochs: of the run, ``None`` for no such limit.
        steps: at most, ``None`` for no such limit.
        limit: ``limit_train_batches``: of an epoch, a number of micro-batches or a share.
        batch: videos of an optimizer step, over all processes.
        accumulate: micro-batches of a step.
        world: processes, on all machines.
        checkpoints: full checkpoints that the run keeps.

    Raises:
        UserError: there is no limit.
    """

    epochs: int | None = None
    steps: int | None = None
    limit: int | float | None = None
    batch: int
    accumulate: int = 1
    world: int = 1
    checkpoints: int = 2

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None:
            raise UserError("the length of the run is missing; give epochs=... or steps=...")

    def steps_per_epoch(self, videos: int) -> int:
        """Return the optimizer steps of an epoch.

        Example:
            >>> Length(epochs=2, batch=8).steps_per_epoch(30)
            3
        """
        batches = videos // self.batch * self.accumulate
        if isinstance(self.limit, float):
            batches = int(batches * self.limit)
        elif self.limit is not None:
            batches = min(batches, self.limit)
        return math.ceil(batches / self.accumulate)

    def total(self, videos: int) -> int:
        """Return the optimizer steps of the run."""
        whole = math.inf if self.epochs is None else self.epochs * self.steps_per_epoch(videos)
        return int(whole if self.steps is None else min(whole, self.steps))


class Queue(NamedTuple):
    """A queue of keys: its length, and keys of one epoch, by the name of the objective."""

    name: str
    size: int
    epoch: int
    stale: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will take.

    Attributes:
        device: name.
        videos: to train on.
        batch: videos of a process's micro-batch, and ``measured`` of these.
        measured: videos of the measured batch; fewer where it would have taken too long.
        step: seconds of a step on the measured batch, with the data in memory.
        parts: seconds of each of its parts, by :data:`~vclr_lightning.bench.step_parts.STEP_PARTS`.
        flops: floating-point operations for each video of a step, forward and backward.
        sample: seconds in which a worker makes a sample.
        needed: workers that keep the device busy.
        workers: that the run has.
        available: that there can be.
        memory: peak bytes of the device, or of this process on the CPU.
        largest: micro-batch that fits.
        length: of the run.
        steps: optimizer steps of the run, and of an epoch.
        epoch_steps: of an epoch.
        seconds: of the run, without evaluations.
        disk: bytes by what they are of.
        queues: of the objectives.
        rejected: sampled videos that cannot be read, with reasons.
    """

    device: str
    videos: int
    batch: int
    measured: int
    step: float
    parts: Mapping[str, float]
    flops: float
    sample: float
    needed: int
    workers: int
    available: int
    memory: int
    largest: LargestBatch
    length: Length
    steps: int
    epoch_steps: int
    seconds: float
    disk: Mapping[str, int]
    queues: list[Queue]
    rejected: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: times in seconds, sizes in bytes."""
        return {**asdict(self), "queues": [queue._asdict() for queue in self.queues]}

    def warnings(self) -> Iterator[str]:
        """Yield what should be changed before the run."""
        if self.largest.videos is not None and self.largest.videos < self.batch:
            yield (
                f"A micro-batch of {self.batch:,} videos does not fit; {self.largest.videos:,} do. "
                "Take a smaller batch_size, or trainer.accumulate_grad_batches."
            )
        for queue in self.queues:
            if queue.stale:
                yield (
                    f"The queue of {queue.name!r} holds {queue.size:,} keys, an epoch has "
                    f"{queue.epoch:,}: stale keys of the same video act as negatives. "
                    f"queue_size={queue.epoch} avoids that."
                )
        better = min(self.needed, self.available)
        if self.workers < better:
            yield f"More workers make it faster: data.num_workers={better}."
        elif self.needed > self.available:
            yield "Training will wait for its data; `vclr bench` measures what would help."
        if self.rejected:
            yield f"Of the sampled videos {len(self.rejected)} cannot be read: {self.rejected[0]}."

    def table(self) -> Table:
        """Return the plan for the terminal, in 80 columns."""
        table = PlainTable("", "", show_header=False)
        for name, text in self._rows():
            table.add_row(name, text)
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        length, disk = self.length, self.disk
        many = f", over {length.world} processes" if length.world > 1 else ""
        yield "device", self.device
        yield "videos", f"{self.videos:,}, in batches of {length.batch:,}{many}"
        yield (
            "length",
            f"{self.steps / self.epoch_steps:,.4g} epochs of {self.epoch_steps:,} steps, "
            f"{self.steps:,} together",
        )
        epoch = time_text(self.seconds * self.epoch_steps / max(self.steps, 1))
        yield "time", f"{time_text(self.seconds)}, {epoch} an epoch, without evaluations"
        few = "" if self.measured == self.batch else f" of the {self.batch:,} of a micro-batch"
        yield "a step", f"{_ms(self.step)} ms, {self.measured:,} videos{few}"
        whole = sum(self.parts.values()) or 1.0
        for name, seconds in self.parts.items():
            if not seconds:  # such as the momentum encoder of a run without one
                continue
            share = f"{_ms(seconds):>7} ms  {seconds / whole:4.0%}"
            yield f"  {STEP_PARTS.get(name, name)}", share
        if self.flops:
            run = self.flops * self.steps * length.batch
            yield "arithmetic", f"{_operations(self.flops)} a video, {_operations(run)} the run:"
            yield "", f"{time_text(run / _SUSTAINED)} for a device that sustains 100 TFLOP/s"
        yield "a sample", f"{_ms(self.sample)} ms of a worker"
        yield (
            "workers",
            f"{self.needed} keep the device busy, {self.available} can be had; the run has "
            f"{self.workers}",
        )
        kind = "of this process" if self.device.startswith("CPU") else "of the device"
        yield "peak memory", f"{size_text(self.memory)} {kind}" if self.memory else "unknown"
        yield "largest micro-batch", self._largest()
        kept = length.checkpoints
        yield "checkpoints", f"{size_text(disk['checkpoints'])} for {kept} with all state"
        if "features" in disk:
            yield "features", f"{size_text(disk['features'])} for a vector of each video"
        if "prepared" in disk:
            yield "vclr prepare", f"{size_text(disk['prepared'])} for all videos, re-encoded"
        for queue in self.queues:
            yield f"queue of {queue.name}", f"{queue.size:,} keys; an epoch has {queue.epoch:,}"

    def _largest(self) -> str:
        found = self.largest
        if found.videos is None:
            return "unknown"
        how = "tried" if found.tried else "estimated from what a step keeps in memory"
        bound = ", all that there are" if found.limited else ""
        return f"{found.videos:,} videos{bound}, {how}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def _operations(number: float) -> str:
    """Return a number of floating-point operations for a reader.

    Example:
        >>> _operations(1.234e12), _operations(5e20)
        ('1.23 TFLOP', '500 EFLOP')
    """
    units = (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")
    size, unit = next((one for one in units if number >= one[0]), units[-1])
    return f"{number / size:.3g} {unit}FLOP"


def time_text(seconds: float) -> str:
    """Return a duration for a reader.

    Example:
        >>> time_text(0.25), time_text(75), time_text(7500), time_text(200_000)
        ('0.25 s', '1 min 15 s', '2 h 5 min', '2 d 7 h')
    """
    units = ("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)
    for unit, part, each, of in units:
        if seconds >= each:
            return f"{seconds // each:.0f} {unit} {seconds % each // of:.0f} {part}"
    return f"{seconds:.3g} s"
