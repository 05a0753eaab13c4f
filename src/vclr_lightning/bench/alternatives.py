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

    Args:
        parts: of the run.
        build: the run with other settings.
        sample: what its samples cost.
        step: what its steps take.
        augment: ``data.augment`` of the run.
        seconds: that the whole benchmark may take; this takes a part of them.
        report: receives what is being measured.

    Returns:
        What was measured, the least effort first; and what was not, with reasons.
    """
    rows = list(dict.fromkeys(row for _, row in sample.keys))
    as_is = _Candidate(name="as it is", dataset=parts.dataset(), step=step.per_video)
    skipped: dict[str, str] = {}

    def compare(candidates: Sequence[_Candidate], rows: Sequence[int]) -> list[Setup]:
        if not candidates:
            return []
        report("what would help")
        datasets = {c.name: c.dataset.__getitem__ for c in [as_is, *candidates]}
        spent = compare_samples(datasets, rows, seconds=0.1 * seconds)
        manifest = str(getattr(as_is.dataset.manifest, "file", "MANIFEST"))
        shares = {name: cpu / spent[as_is.name] for name, cpu in spent.items()}
        differing = sample.cpu - sample.phases["collate"]
        return [
            Setup(
                name=c.name,
                worker=sample.wall - differing * (1 - shares[c.name]),
                step=c.step,
                lines=c.lines(manifest),
                cheaper=1 / shares[c.name],
                bytes_ratio=c.bytes_ratio,
            )
            for c in candidates
        ]

    augmented: list[_Candidate] = []
    for name in ("opencv", "device"):
        override = f"data.augment={name}"
        if name == augment:
            continue
        try:
            other = build({"data.num_workers": 0, "data.augment": name})
            dataset, per_video = other.dataset(), step.per_video
            if name == "device":
                report("steps that augment on the device")
                data = OneBatch(
                    other.data, batch_of([dataset[0, r] for r in rows[:_COMPARED]], step.videos)
                )
                found = training_cost(other, videos=step.videos, seconds=0.1 * seconds, data=data)
                per_video = found.per_video if found else per_video
        except UserError as error:
            skipped[override] = str(error)
            continue
        augmented.append(
            _Candidate(name=override, dataset=dataset, step=per_video, override=override)
        )
    setups = compare(augmented, rows[:_COMPARED])
    try:
        sources = choose_sources(parts.data.train, rows, seconds=0.5 * seconds)
    except UserError as error:
        return setups, {**skipped, "vclr prepare": str(error)}
    encoded: list[_Candidate] = []
    with tempfile.TemporaryDirectory(prefix="vclr-bench-") as folder:
        for name, (options, recipe) in reencodings(sources).items():
            report(f"re-encoding a few videos: {name}")
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
        setups += compare(encoded, [source.row for source in sources])
    return setups, skipped


def compare_samples(
    datasets: Mapping[str, Callable[[tuple[int, int]], Any]],
    rows: Sequence[int],
    *,
    seconds: float,
) -> dict[str, float]:
    """Return the CPU time that each dataset takes for the same samples, in turns, in one thread.

    A round makes one sample of each row with each dataset, each round beginning with another one.

    Args:
        datasets: make a sample of a key ``(epoch, row)``.
        rows: of the samples.
        seconds: to measure for; two rounds at least.

    Raises:
        UserError: a sample cannot be made.
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
