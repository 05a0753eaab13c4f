"""Compare costs in turns within one run.

A round runs every case once on the same input, in an order that changes from round to round. Costs
are CPU times, which a busy machine affects less; ratios are those of medians over the rounds, with
an interval from resampling whole rounds.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

_RESAMPLES = 2000

VECTORS = torch.backends.cpu.get_cpu_capability()
"""Kind of processor, by the widest vector instructions that torch uses: AVX2, AVX512, ..."""


@dataclass(frozen=True)
class Ratio:
    """Cost of the baseline relative to a case, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` measured.

    Attributes:
        seconds: of each case, one number a round, ``(repeats,)``.
        baseline: the case that the others are measured against.
        targets: the least ratio that a case must reach.
        bounded: whether the lower bound of the interval must reach it, and not just the ratio.
    """

    seconds: Mapping[str, np.ndarray]
    baseline: str
    targets: Mapping[str, float] = field(default_factory=dict)
    bounded: bool = False

    def ratio(self, case: str, *, of: str | None = None) -> Ratio:
        """Return median cost of ``of`` (the baseline) over that of ``case``."""
        above, below = self.seconds[of or self.baseline], self.seconds[case]
        rows = np.random.default_rng(0).integers(0, len(below), (_RESAMPLES, len(below)))
        resampled = np.median(above[rows], axis=1) / np.median(below[rows], axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Ratio(float(np.median(above) / np.median(below)), float(low), float(high))

    @property
    def missed(self) -> list[str]:
        """Cases that miss their target."""
        return [case for case, least in self.targets.items() if not self._reaches(case, least)]

    def _reaches(self, case: str, least: float) -> bool:
        ratio = self.ratio(case)
        return (ratio.low if self.bounded else ratio.value) >= least

    def table(self, title: str) -> Table:
        """Return the results as a table."""
        table = Table(title=title, title_justify="left")
        table.add_column("case")
        table.add_column("median ms", justify="right")
        table.add_column(f"{self.baseline} costs", justify="right")
        table.add_column("95 %", justify="right")
        table.add_column("at least", justify="right")
        for case, seconds in self.seconds.items():
            ratio, least = self.ratio(case), self.targets.get(case)
            verdict = "" if least is None else f"{least:g} x"
            if case in self.missed:
                verdict = f"[red]{verdict} missed[/red]"
            is_baseline = case == self.baseline
            table.add_row(
                case,
                f"{1e3 * float(np.median(seconds)):.2f}",
                "" if is_baseline else f"{ratio.value:.2f} x",
                "" if is_baseline else f"{ratio.low:.2f} to {ratio.high:.2f}",
                verdict,
            )
        return table


def compare(
    cases: Mapping[str, Callable[[int], object]],
    *,
    baseline: str,
    repeats: int,
    targets: Mapping[str, float] | None = None,
    bounded: bool = False,
    calls: Mapping[str, int] | None = None,
    warmup: int = 1,
    clock: Callable[[], float] = time.process_time,
    label: str = "measuring",
) -> Comparison:
    """Run the cases in turns and compare their costs.

    Args:
        cases: called with the number of the call, so that all cases have the same inputs;
            calls of the warm-up have negative numbers.
        baseline: the case that the others are measured against.
        repeats: rounds that count.
        targets: the least ratio, cost of the baseline over cost of the case, by case.
        bounded: whether the lower bound of the 95 % interval must reach the targets.
        calls: calls of a case per round, 1 by default, of which the mean counts. A single call of a
            short case would pay for caches that a long one has emptied.
        warmup: rounds before those that count.
        clock: gives seconds; by default CPU time of all threads of this process.
        label: of the progress bar.
    """
    unknown = ({baseline} | set(targets or {})) - set(cases)
    if unknown:
        raise ValueError(f"no such case: {', '.join(sorted(unknown))}")
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    names = list(cases)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in track(
            range(-warmup, repeats), label, console=Console(stderr=True), transient=True
        ):
            for index in order.permutation(len(names)):
                name = names[index]
                times = (calls or {}).get(name, 1)
                start = clock()
                for call in range(number * times, (number + 1) * times):
                    cases[name](call)
                elapsed = (clock() - start) / times
                if number >= 0:
                    seconds[name].append(elapsed)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return Comparison(
        seconds={case: np.array(values) for case, values in seconds.items()},
        baseline=baseline,
        targets=dict(targets or {}),
        bounded=bounded,
    )


def cpu_name() -> str:
    """Return the processor's name and kind."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {VECTORS}"


def report(comparisons: Mapping[str, Comparison]) -> int:
    """Print the tables and the missed targets; return the exit status, 1 if there are any."""
    console = Console()
    console.print(f"processor: {cpu_name()}")
    for title, comparison in comparisons.items():
        console.print(comparison.table(title))
    missed = [f"{title}: {case}" for title, c in comparisons.items() for case in c.missed]
    if missed:
        console.print(f"[red]missed: {'; '.join(missed)}[/red]")
    return int(bool(missed))
