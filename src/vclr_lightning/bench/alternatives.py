"""What would help a run: other ways to augment and re-encoded files, measured in turns with it."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from vclr_lightning.bench.advice import Setup
from vclr_lightning.bench.parts import Build, Parts
from vclr_lightning.bench.reencoding import choose_sources, reencode, reencodings
from vclr_lightning.bench.samples import SampleCost, one_thread
from vclr_lightning.bench.step import OneBatch, TrainingCost, batch_of, training_cost
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.dataset import VideoDataset

_COMPARED = 8  # videos on which augmentations are compared
_ROUNDS = 2, 64  # at least, at most


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A setup to be measured; ``prepare``: options of ``vclr prepare``, if files change."""

    name: str
    dataset: VideoDataset
    step: float
    override: str = ""
    prepare: str | None = None
    bytes_ratio: float = 1.0

    def lines(self, manifest: str) -> tuple[str, ...]:
        if self.prepare is None:
            return (self.override,)
        return (
            f"vclr prepare {shlex.quote(manifest)} --out FOLDER{self.prepare}",
            f"data.manifest=FOLDER/manifest.arrow {self.override}".rstrip(),
        )


def measure_alternatives(
    parts: Parts,
    build: Build,
    sample: SampleCost,
    step: TrainingCost,
    *,
    augment: str | None,
    seconds: float,
    report: Callable[[str], None],
) -> tuple[list[Setup], dict[str, str]]:
    """Measure other ways to augment and re-encoded files on the same samples, in turns.

    Returns:
        What was measured, the least effort first; and what was not, with reasons.
    """
    rows = list(dict.fromkeys(row for _, row in sample.keys))
    as_is = _Candidate(name="as it is", dataset=parts.dataset(), step=step.per_video)
    augmented: list[_Candidate] = []
    skipped: dict[str, str] = {}
    for name in ("opencv", "device"):
        if name == augment:
            continue
        report(f"data.augment={name}")
        try:
            augmented.append(_augmented(name, build, step, rows[:_COMPARED], seconds=0.1 * seconds))
        except UserError as error:
            skipped[f"data.augment={name}"] = str(error)
    report("other ways to augment")
    setups = _compare([as_is, *augmented], rows[:_COMPARED], sample, seconds=0.1 * seconds)
    try:
        sources = choose_sources(parts.data.train, rows, seconds=0.5 * seconds)
    except UserError as error:
        return setups, {**skipped, "vclr prepare": str(error)}
    encoded: list[_Candidate] = []
    with tempfile.TemporaryDirectory(prefix="vclr-bench-") as folder:
        for name, (options, recipe) in reencodings(sources).items():
            report(f"{name}: re-encoding a few videos")
            try:
                table, ratio = reencode(parts.data.train, sources, recipe, Path(folder, name))
            except UserError as error:
                skipped[name] = str(error)
                continue
            encoded += [
                _Candidate(
                    name=f"{name}, {c.override}" if c.override else name,
                    dataset=c.dataset.replaced(manifest=table),
                    step=c.step,
                    override=c.override,
                    prepare=options,
                    bytes_ratio=ratio,
                )
                for c in ([as_is] if encoded else [as_is, *augmented])
            ]
        report("re-encoded videos")
        rows = [source.row for source in sources]
        setups += _compare([as_is, *encoded], rows, sample, seconds=0.1 * seconds)
    return setups, skipped


def _augmented(
    name: str, build: Build, step: TrainingCost, rows: Sequence[int], *, seconds: float
) -> _Candidate:
    """Augment otherwise; on the device, steps are measured anew."""
    parts = build({"data.num_workers": 0, "data.augment": name})
    dataset, per_video = parts.dataset(), step.per_video
    if name == "device":
        data = OneBatch(parts.data, batch_of([dataset[0, row] for row in rows], step.videos))
        found = training_cost(parts, videos=step.videos, seconds=seconds, data=data)
        per_video = found.per_video if found else per_video
    override = f"data.augment={name}"
    return _Candidate(name=override, dataset=dataset, step=per_video, override=override)


def _compare(
    candidates: Sequence[_Candidate], rows: Sequence[int], sample: SampleCost, *, seconds: float
) -> list[Setup]:
    """Measure candidates relative to the first one, of which ``sample`` is the cost."""
    if len(candidates) < 2:
        return []
    datasets = {c.name: c.dataset.__getitem__ for c in candidates}
    spent = compare_samples(datasets, rows, seconds=seconds)
    manifest = str(getattr(candidates[0].dataset.manifest, "file", "MANIFEST"))
    differing = sample.cpu - sample.phases["collate"]
    setups = []
    for c in candidates[1:]:
        share = spent[c.name] / spent[candidates[0].name]
        setups.append(
            Setup(
                name=c.name,
                worker=sample.wall - differing * (1 - share),
                step=c.step,
                lines=c.lines(manifest),
                cheaper=1 / share,
                bytes_ratio=c.bytes_ratio,
            )
        )
    return setups


def compare_samples(
    datasets: Mapping[str, Callable[[tuple[int, int]], Any]],
    rows: Sequence[int],
    *,
    seconds: float,
) -> dict[str, float]:
    """Return the CPU time that each dataset takes for the same samples, in turns, in one thread.

    A round makes one sample of each row with each dataset, each round beginning with another one;
    there are at least two.
    """
    least, most = _ROUNDS
    spent = dict.fromkeys(datasets, 0.0)
    names = list(datasets)
    begin = time.monotonic()
    with one_thread():
        for name in names:  # warm-up
            datasets[name]((0, rows[0]))
        for number in count(1):
            shift = number % len(names)
            for row in rows:
                for name in names[shift:] + names[:shift]:
                    start = time.process_time()
                    datasets[name]((number, row))
                    spent[name] += time.process_time() - start
            if number >= most or (number >= least and time.monotonic() - begin > seconds):
                break
    return spent
