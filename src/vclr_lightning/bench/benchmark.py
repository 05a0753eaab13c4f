"""Measure a run: samples, steps, both together, and what would help."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from vclr_lightning import __version__
from vclr_lightning.bench.advice import Advice, Setup, advise, some_workers
from vclr_lightning.bench.alternatives import measure_alternatives
from vclr_lightning.bench.parts import Build
from vclr_lightning.bench.samples import PHASES, SampleCost, sample_cost
from vclr_lightning.bench.step import TrainingCost, step_cost, training_cost
from vclr_lightning.core.screen import PlainTable, screen
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
        build: returns the run's parts, for one process.
        seconds: to measure for, roughly; a machine or a batch that is too slow for it is measured
            for longer, or on less, which the result reports.
        augment: ``data.augment`` of the run.
        num_workers: of the run; ``None`` for as many as there can be.
        processes: of this machine, which share its cores.
        variants: whether to measure what would help.
        show: print what is being measured to standard error.

    Raises:
        UserError: the run cannot be built, or a part of it finds a mistake.
    """
    parts = build({"data.num_workers": 0})
    begin = time.monotonic()  # indexing, where it was needed, is done
    batch = parts.micro_batch()
    available = default_num_workers(processes)
    run: TrainingCost | None = None
    reason = ""
    setups: list[Setup] = []
    skipped: dict[str, str] = {}

    def report(what: str) -> None:
        if show:
            screen(stderr=True).print(f"measuring {what}", soft_wrap=True)

    report("samples, as a worker makes them")
    sample = sample_cost(parts.dataset(), parts.keys(), seconds=0.2 * seconds, batch=batch)
    report("training steps")
    step = step_cost(parts, sample.kept, batch=batch, seconds=0.15 * seconds)
    now = Setup(name="as it is", worker=sample.wall, step=step.per_video)
    workers = min(now.workers, available) if num_workers is None else num_workers
    takes = 3 * batch * max(now.worker, now.step)  # three batches per worker
    if takes > seconds:
        reason = f"would take {takes:.0f} s: give --seconds {2 * takes:.0f}"
    else:
        report(f"training with {workers} workers")
        run = training_cost(
            build({"data.num_workers": workers}),
            videos=batch,
            seconds=max(2 * batch * now.worker, 0.15 * seconds),
            warmup=max(1, workers),
        )
        reason = "" if run else "the run has too few batches"
    if variants:
        setups, skipped = measure_alternatives(
            parts, build, sample, step, augment=augment, seconds=seconds, report=report
        )
    advice = advise(
        now,
        setups,
        available=available,
        on_cpu=step.device.startswith("CPU"),
        wait=run.wait if run is not None and workers >= now.workers else 0.0,
    )
    return Bench(
        sample=sample,
        step=step,
        batch=batch,
        now=now,
        available=available,
        run=run,
        run_workers=workers,
        run_reason=reason,
        setups=setups,
        skipped=skipped,
        advice=advice,
        videos=len(parts.data.train),
        seconds=time.monotonic() - begin,
    )


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the time of a run goes, and what would help.

    Attributes:
        sample: what a sample costs a worker.
        step: what a training step takes, on a batch in memory.
        batch: videos of a whole batch; more than in ``step`` where it would have taken too long.
        now: the run as it is.
        available: workers that a process can have.
        run: training with the loader, where it was measured.
        run_workers: of that training.
        run_reason: why it was not.
        setups: what might help.
        skipped: what might help and was not measured, with reasons.
        advice: what to do.
        videos: of the training set.
        seconds: that measuring took.
    """

    sample: SampleCost
    step: TrainingCost
    batch: int
    now: Setup
    available: int
    run: TrainingCost | None
    run_workers: int
    run_reason: str
    setups: list[Setup]
    skipped: dict[str, str]
    advice: Advice
    videos: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, times in seconds."""
        sample = self.sample
        return {
            "version": __version__,
            "videos": self.videos,
            "seconds": self.seconds,
            "sample": {
                "samples": len(sample.keys),
                "cpu": sample.cpu,
                "wall": sample.wall,
                "wait": sample.wait,
                "phases": sample.phases,
                "shares": {name: value / sample.cpu for name, value in sample.phases.items()},
                "videos_per_s_and_worker": 1 / sample.wall,
                "rejected": [dict(item) for item in sample.rejected],
            },
            "step": {
                **asdict(self.step),
                "batch": self.batch,
                "videos_per_s": 1 / self.step.per_video,
            },
            "workers": {"needed": self.now.workers, "available": self.available},
            "run": self.run
            and {
                **asdict(self.run),
                "workers": self.run_workers,
                "videos_per_s": 1 / self.run.per_video,
            },
            "run_reason": self.run_reason,
            "variants": [
                {**asdict(s), "workers": s.workers, "videos_per_s": s.rate(self.available)}
                for s in self.setups
            ]
            + [{"name": name, "reason": reason} for name, reason in self.skipped.items()],
            "advice": self.advice._asdict(),
        }

    def tables(self) -> list[Table]:
        """Return the measurements as tables for the terminal."""
        tables = [self._sample_table(), self._training_table()]
        return [*tables, self._setup_table()] if self.setups else tables

    def _sample_table(self) -> Table:
        sample = self.sample
        table = _table(f"a worker's time for a sample, mean of {len(sample.keys)}", "")
        for title in ("CPU ms", "share"):
            table.add_column(title, justify="right")
        for name, seconds in sample.phases.items():
            table.add_row(PHASES[name], _ms(seconds), f"{seconds / sample.cpu:.0%}")
        table.add_section()
        table.add_row("together", _ms(sample.cpu), "100%")
        table.add_row("waiting, for the disk or a core", _ms(sample.wait), "")
        return table

    def _training_table(self) -> Table:
        step, run = self.step, self.run
        size = f"{step.videos:,} videos"
        if step.videos < self.batch:
            size += f", of a batch of {self.batch:,}, which would have taken too long"
        table = _table("training", "", "")
        table.add_row("device", step.device)
        table.add_row("a step", f"{_ms(step.seconds)} ms, {size}")
        if step.memory:
            table.add_row("peak memory", f"{step.memory / 2**30:.2f} GiB")
        table.add_section()
        table.add_row("the device takes", f"{1 / step.per_video:.3g} videos/s")
        table.add_row("a worker delivers", f"{1 / self.sample.wall:.3g} videos/s")
        table.add_row("workers that keep it busy", f"{self.now.workers}")
        table.add_row("cores for workers", f"{self.available}")
        if run is None:
            table.add_row("measured together", f"no: {self.run_reason}")
        else:
            table.add_row(
                f"measured with {some_workers(self.run_workers)}",
                f"{1 / run.per_video:.3g} videos/s, waiting for data {run.wait:.0%} of the time",
            )
        return table

    def _setup_table(self) -> Table:
        table = _table(f"what would help, with {some_workers(self.available)}", "")
        for title in ("worker's CPU", "bytes", "workers needed", "videos/s"):
            table.add_column(title, justify="right")
        for s in [self.now, *self.setups]:
            cpu, size = f"{1 / s.cheaper:.2f} x", f"{s.bytes_ratio:.2g} x"
            table.add_row(s.name, cpu, size, f"{s.workers}", f"{s.rate(self.available):.3g}")
        return table

    def notices(self) -> list[str]:
        """Return lines on what was not measured, and on videos that cannot be read."""
        lines = [f"{name}: not measured: {reason}" for name, reason in self.skipped.items()]
        if rejected := self.sample.rejected:
            first = rejected[0]
            lines.append(
                f"{len(rejected)} of the videos cannot be read and were replaced by others; "
                f"the first, {first['path']}: {first['reason']}"
            )
        return lines


def _table(title: str, *headers: str) -> Table:
    return PlainTable(*headers, title=title, title_justify="left")


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.4g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"
