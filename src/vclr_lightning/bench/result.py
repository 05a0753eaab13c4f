"""What was measured, as tables for the terminal and as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vclr_lightning import __version__

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.bench.advice import Advice, Option
    from vclr_lightning.bench.samples import SampleCost
    from vclr_lightning.bench.steps import RunCost, StepCost
    from vclr_lightning.bench.variants import Variant

_WORDS = {
    "open": "open the file, read its index",
    "seek": "seek, read packets",
    "decode": "decode",
    "convert": "convert to RGB",
    "augment": "crop and augment",
    "draw": "draw frames, put clips together",
    "collate": "collate a batch",
}

_MUCH = 0.5  # of waiting, for a second of work


@dataclass(frozen=True)
class Measured:
    """A variant, and what came of it.

    Attributes:
        variant: which.
        option: its speed; ``None`` where it could not be measured.
        cheaper: how many times less CPU time a sample takes.
        bytes_ratio: bytes of its files for a byte of the run's own.
        reason: why it was not measured.
    """

    variant: Variant
    option: Option | None = None
    cheaper: float = 1.0
    bytes_ratio: float = 1.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the time of a run goes, and what would help.

    Attributes:
        sample: what a sample costs a worker.
        step: what a training step takes.
        now: the run as it is.
        available: workers that a process can have.
        run: training with the loader, where it was measured.
        run_reason: why it was not.
        variants: what might help.
        advice: what to do.
        videos: of the training set.
        seconds: that measuring took.
    """

    sample: SampleCost
    step: StepCost
    now: Option
    available: int
    run: RunCost | None
    run_reason: str
    variants: list[Measured]
    advice: Advice
    videos: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, times in seconds."""
        sample, step, run = self.sample, self.step, self.run
        return {
            "version": __version__,
            "videos": self.videos,
            "seconds": self.seconds,
            "sample": {
                "samples": sample.samples,
                "cpu": sample.cpu,
                "wall": sample.wall,
                "wait": sample.wait,
                "phases": sample.phases,
                "shares": {name: value / sample.cpu for name, value in sample.phases.items()},
                "videos_per_s_and_worker": 1 / sample.wall,
                "rejected": [dict(item) for item in sample.rejected],
            },
            "step": {
                "seconds": step.seconds,
                "videos": step.videos,
                "batch": step.wanted,
                "steps": step.steps,
                "videos_per_s": 1 / step.per_video,
                "memory": step.memory,
                "device": step.device,
            },
            "workers": {"needed": self.now.workers, "available": self.available},
            "run": None
            if run is None
            else {
                "workers": run.workers,
                "videos_per_s": run.videos_per_s,
                "wait": run.wait,
                "steps": run.steps,
            },
            "run_reason": self.run_reason,
            "variants": [self._variant(measured) for measured in self.variants],
            "advice": {"text": self.advice.text, "lines": list(self.advice.lines)},
        }

    def _variant(self, measured: Measured) -> dict[str, Any]:
        option = measured.option
        if option is None:
            return {"name": measured.variant.name, "reason": measured.reason}
        return {
            "name": option.name,
            "cheaper": measured.cheaper,
            "bytes_ratio": measured.bytes_ratio,
            "worker": option.worker,
            "step": option.step,
            "workers": option.workers,
            "videos_per_s": option.rate(self.available),
            "lines": list(option.lines),
        }

    def tables(self) -> list[Table]:
        """Return the figures, for the terminal."""
        tables = [self._time_table(), self._speed_table()]
        return [*tables, self._variant_table()] if self.variants else tables

    def _time_table(self) -> Table:
        table = _table(f"a worker's time for a sample, mean of {self.sample.samples}")
        for title in ("", "CPU ms", "share"):
            table.add_column(title, justify="left" if not title else "right")
        for name, seconds in self.sample.phases.items():
            table.add_row(_WORDS[name], _ms(seconds), f"{seconds / self.sample.cpu:.0%}")
        table.add_section()
        table.add_row("together", _ms(self.sample.cpu), "100%")
        table.add_row("waiting, for the disk or a core", _ms(self.sample.wait), "")
        return table

    def _speed_table(self) -> Table:
        step, run = self.step, self.run
        table = _table("training")
        table.add_column("")
        table.add_column("")
        size = f"{step.videos:,} videos"
        if step.videos < step.wanted:
            size += f", of a batch of {step.wanted:,}, which would have taken too long"
        table.add_row("device", step.device)
        table.add_row("a step", f"{_ms(step.seconds)} ms, {size}")
        if step.memory:
            table.add_row("peak memory", f"{step.memory / 2**30:.2f} GiB")
        table.add_section()
        table.add_row("the device takes", f"{1 / step.per_video:.3g} videos/s")
        table.add_row("a worker delivers", f"{1 / self.sample.wall:.3g} videos/s")
        table.add_row("workers that keep it busy", f"{self.now.workers}")
        table.add_row("workers that there can be", f"{self.available}")
        if run is None:
            table.add_row("measured together", f"no: {self.run_reason}")
        else:
            table.add_row(
                f"measured with {run.workers} worker{'' if run.workers == 1 else 's'}",
                f"{run.videos_per_s:.3g} videos/s, waiting for data {run.wait:.0%} of the time",
            )
        return table

    def _variant_table(self) -> Table:
        workers = f"{self.available} worker{'' if self.available == 1 else 's'}"
        table = _table(f"what would help, with {workers}")
        table.add_column("")
        for title in ("worker's CPU", "bytes", "workers needed", "videos/s"):
            table.add_column(title, justify="right")
        now = self.now
        table.add_row(now.name, "1 x", "1 x", f"{now.workers}", f"{now.rate(self.available):.3g}")
        for measured in self.variants:
            option = measured.option
            if option is None:
                continue
            table.add_row(
                option.name,
                f"{1 / measured.cheaper:.2f} x",
                f"{measured.bytes_ratio:.2g} x",
                f"{option.workers}",
                f"{option.rate(self.available):.3g}",
            )
        return table

    def notices(self) -> list[str]:
        """Return lines on what was not measured, and on videos that cannot be read."""
        lines = [f"{m.variant.name}: not measured: {m.reason}" for m in self.variants if m.reason]
        sample = self.sample
        if sample.wait > _MUCH * sample.cpu:
            lines.append(
                f"a sample waits {_ms(sample.wait)} ms beside {_ms(sample.cpu)} ms of work, for a "
                "slow disk, or for cores that other programs use; what is said of workers counts it"
            )
        if rejected := sample.rejected:
            first = rejected[0]
            lines.append(
                f"{len(rejected)} of the videos cannot be read and were replaced by others; the "
                f"first, {first['path']}: {first['reason']}"
            )
        return lines


def _table(title: str) -> Table:
    from vclr_lightning.core.screen import PlainTable

    return PlainTable(title=title, title_justify="left")


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.4g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"
