"""Measure what would help a run: other ways to augment, and other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vclr_lightning.bench.advice import Option
from vclr_lightning.bench.files import Reencoded, choose_sources
from vclr_lightning.bench.parts import Build, Parts
from vclr_lightning.bench.result import Measured
from vclr_lightning.bench.samples import SampleCost
from vclr_lightning.bench.steps import StepCost, step_cost
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
from vclr_lightning.core.screen import progress_bar

_SOURCES = 3  # videos that are re-encoded
_ROWS = 8  # videos on which augmentations are compared


class Helping:
    """Measures the variants of a run.

    Args:
        folder: for files that are re-encoded.
        build: gives the run's parts with other values.
        seconds: to measure the whole run for, of which this takes a part.
        show: show progress bars.
    """

    def __init__(self, folder: Path, build: Build, seconds: float, *, show: bool) -> None:
        self.folder = folder
        self.build = build
        self.seconds = seconds
        self.show = show

    def measure(
        self, parts: Parts, sample: SampleCost, step: StepCost, augment: str | None
    ) -> list[Measured]:
        """Return the variants that are not as the run is, and what came of them.

        Args:
            parts: of the run.
            sample: what its samples cost.
            step: what its steps take.
            augment: ``data.augment`` of the run.
        """
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


def _manifest_of(case: Case) -> str:
    return str(getattr(case.dataset.manifest, "file", "MANIFEST"))
