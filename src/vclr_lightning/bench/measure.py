"""Measure a run: samples, steps, both together, and what would help."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from vclr_lightning.bench.advice import Option, advise
from vclr_lightning.bench.files import Reencoded, choose_sources
from vclr_lightning.bench.parts import Build, Parts
from vclr_lightning.bench.result import Bench, Measured
from vclr_lightning.bench.samples import SampleCost, sample_cost
from vclr_lightning.bench.steps import RunCost, StepCost, run_cost, step_cost
from vclr_lightning.bench.variants import (
    Case,
    Variant,
    compare_samples,
    other_augmentations,
    other_files,
    reencoded,
    with_files,
)
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.epochs import EpochBatches, epoch_order, micro_batch_size
from vclr_lightning.data.indexing.progress import progress_bar
from vclr_lightning.data.workers import default_num_workers

_SOURCES = 3  # videos that are re-encoded
_ROWS = 8  # videos on which augmentations are compared


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
        measured = self._variants(parts, sample, step, augment) if variants else []
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

    def _variants(
        self, parts: Parts, sample: SampleCost, step: StepCost, augment: str | None
    ) -> list[Measured]:
        rows = list(dict.fromkeys(row for _, row in sample.keys))
        as_is = Case(variant=Variant("as it is"), dataset=parts.dataset())
        cases, measured = [as_is], []
        steps: dict[str, float] = {}
        for variant in other_augmentations(augment):
            try:
                other = self.build({"data.num_workers": 0, **variant.values})
                case = Case(variant=variant, dataset=other.dataset())
                steps[variant.name] = self._step(case, other, step, rows)
            except UserError as error:
                measured.append(Measured(variant, reason=str(error)))
                continue
            cases.append(case)
        measured += self._compare(cases, rows[:_ROWS], sample, step, steps)
        files, refused = self._files(parts, rows)
        measured += [Measured(variant, reason=reason) for variant, reason in refused]
        if files:
            encoded = [
                with_files(case, made, variant)
                for variant, made in files
                for case in cases
                if case is as_is or variant is files[0][0]
            ]
            some = list(files[0][1].files)
            measured += self._compare([as_is, *encoded], some, sample, step, steps)
        return measured

    def _compare(
        self,
        cases: Sequence[Case],
        rows: Sequence[int],
        sample: SampleCost,
        step: StepCost,
        steps: dict[str, float],
    ) -> list[Measured]:
        """Measure the first case and the others on the same samples."""
        if len(cases) < 2:
            return []
        with progress_bar("what might help", show=self.show) as update:
            spent = compare_samples(
                {case.variant.name: case.dataset.__getitem__ for case in cases},
                rows,
                seconds=0.1 * self.seconds,
                update=update,
            )
        found = []
        own = sample.cpu - sample.phases["collate"]  # what cases differ in
        for case in cases[1:]:
            share = spent[case.variant.name] / spent[cases[0].variant.name]
            augmentation = next((n for n in steps if case.variant.name.endswith(n)), "")
            option = Option(
                name=case.variant.name,
                worker=sample.wall - own * (1 - share),
                step=steps.get(augmentation, step.per_video),
                lines=tuple(case.variant.lines(_manifest_of(cases[0]))),
            )
            found.append(Measured(case.variant, option, 1 / share, case.bytes_ratio))
        return found

    def _step(self, case: Case, parts: Parts, step: StepCost, rows: Sequence[int]) -> float:
        """Seconds of training on a video that the device may have to augment."""
        if case.variant.values.get("data.augment") != "device":
            return step.per_video
        samples = [case.dataset[0, row] for row in rows[:_ROWS]]
        with progress_bar("training steps, augmented on the device", show=self.show) as update:
            found = step_cost(
                parts,
                samples,
                batch=step.videos,
                seconds=0.1 * self.seconds,
                directory=self.folder,
                update=update,
                try_small=False,
            )
        return found.per_video

    def _files(
        self, parts: Parts, rows: Sequence[int]
    ) -> tuple[list[tuple[Variant, Reencoded]], list[tuple[Variant, str]]]:
        """Re-encode a few videos in all ways that may help, within a share of the time."""
        prepare = Variant("vclr prepare")
        try:
            sources = choose_sources(parts.data.train, rows, number=_SOURCES)
        except UserError as error:
            return [], [(prepare, str(error))]
        ways = other_files(sources)
        allowed = 0.5 * self.seconds / len(ways)
        while len(sources) > 1 and sum(source.seconds for source in sources) > allowed:
            sources = sources[:-1]
        if (takes := sources[0].seconds) > 2 * allowed:
            reason = f"re-encoding a video would take {takes:.0f} s: give more --seconds"
            return [], [(prepare, reason)]
        done: list[tuple[Variant, Reencoded]] = []
        refused: list[tuple[Variant, str]] = []
        with progress_bar("re-encoding a few videos", len(ways), show=self.show) as update:
            for number, variant in enumerate(ways):
                made = reencoded(sources, variant, self.folder, number)
                if isinstance(made, str):
                    refused.append((variant, made))
                else:
                    done.append((variant, made))
                update(number + 1, variant.name)
        return done, refused


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


def _manifest_of(case: Case) -> str:
    return str(getattr(case.dataset.manifest, "file", "MANIFEST"))
