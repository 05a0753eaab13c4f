"""A training step in each precision and format, against the released code's, in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.cases import (
    BASELINE,
    CASES,
    COMPILED,
    Case,
    Ready,
    batch_on,
    build,
    clear,
    largest,
    peak_memory,
)
from benchmarks.gpu.peaks import find_peak, peak_rate
from benchmarks.gpu.record import Add, Setting, out_of_memory
from benchmarks.timing import Comparison, compare

_SHARE = 0.7  # of the time that is left, for the turns
_MOST = 21  # rounds


def begin(cases: Sequence[Case], batch: Any, setting: Setting, add: Add) -> Ready:
    """Take the first steps of each case that works and for which there is time."""
    ready: Ready = {}
    spent = 0.0
    for case in cases:
        if setting.left() < 4 * spent:
            add(case.name, "not measured: no time left", skipped=True)
            continue
        step: Any = None
        try:
            begun = setting.clock()
            step = build(case, setting)
            step(batch, 0)  # compiles, and searches algorithms
            first_step = setting.clock() - begun
            memory = peak_memory(step, batch, setting)
            add(
                f"{case.name}: first step, peak memory",
                f"{first_step:.1f} s, {memory / 2**30:.2f} GiB",
                memory=memory,
                first_step=first_step,
            )
            begun = setting.clock()
            step(batch, 1)
            spent += setting.clock() - begun
            ready[case] = step
        except Exception as error:  # such as a compiler that is missing
            said = " ".join(str(error).split())[:200]
            add(case.name, f"failed: {type(error).__name__}: {said}", failed=True)
        del step
        clear()
    return ready


def turns(ready: Ready, videos: int, setting: Setting) -> tuple[Comparison, int]:
    """Let the cases take turns, on fewer videos where all together need more memory than one."""
    first = next(iter(ready))
    while True:
        batch = batch_on(setting, videos)
        try:
            begun = setting.clock()
            for step in ready.values():
                step(batch, 2)
            each = max(setting.clock() - begun, 1e-6)
            repeats = 2 if setting.tiny else int(_SHARE * setting.left() / each) - 1
            cases = {case.name: partial(_call, step, batch) for case, step in ready.items()}
            found = compare(
                cases,
                baseline=first.name,
                repeats=max(2, min(repeats, _MOST)),
                clock=setting.clock,
                label="steps in turns",
            )
        except Exception as error:
            if not out_of_memory(error) or videos == 1:
                raise
        else:
            return found, videos
        del batch
        clear()
        videos //= 2


def _call(step: Callable[[Any, int], Any], batch: Any, number: int) -> None:
    step(batch, max(number, 0))


def report(
    ready: Ready, compared: Comparison, *, videos: int, flops: float, setting: Setting, add: Add
) -> None:
    """Add times, ratios and, with the operations of a step for a video, the arithmetic."""
    cuda = setting.device.type == "cuda"
    peak = find_peak(torch.cuda.get_device_name(setting.device)) if cuda else None
    if peak is not None:
        add(f"peak of {peak.name} ({peak.source})", _peaks(peak), **peak._asdict())
    for case in ready:
        seconds = float(np.median(compared.seconds[case.name]))
        ratio = compared.ratio(case.name)
        rate, best = flops * videos / seconds / 1e12, peak_rate(peak, case.form)
        mfu = None if best is None else rate / best
        add(
            f"{case.name}: a step of {videos} videos",
            f"{1e3 * seconds:.4g} ms, {videos / seconds:.4g} videos/s",
            case=case.name,
            seconds=compared.seconds[case.name].tolist(),
            videos=videos,
            videos_per_s=videos / seconds,
        )
        add(
            f"{case.name}: times as fast; arithmetic",
            f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}); {rate:.3g} TFLOP/s"
            + ("" if mfu is None else f", {mfu:.0%} of the peak"),
            baseline=compared.baseline,
            ratio=ratio.value,
            interval=[ratio.low, ratio.high],
            tflops=rate,
            mfu=mfu,
        )


def steps(setting: Setting, add: Add) -> None:
    """Find the largest batches, take turns, and count operations against the card's peak."""
    torch.backends.cudnn.benchmark = True
    ours = largest(Case(name="fp32"), setting, first=2 if setting.tiny else 64)
    theirs = largest(BASELINE, setting, first=max(1, ours))
    videos = min(ours, theirs)
    add("largest batch, fp32: ours, as released", f"{ours}, {theirs}", ours=ours, released=theirs)
    if not videos:
        raise RuntimeError("not even one video fits the device")
    batch = batch_on(setting, videos)
    ready = begin(CASES, batch, setting, add)
    with FlopCounterMode(display=False) as counter:
        next(step for case, step in ready.items() if not case.released)(batch, 0)
    flops = counter.get_total_flops() / videos
    add("operations of a step, a video", f"{flops / 1e9:.4g} GFLOP", flops=flops, videos=videos)
    del batch
    compared, videos = turns(ready, videos, setting)
    report(ready, compared, videos=videos, flops=flops, setting=setting, add=add)


def compiled(setting: Setting, add: Add) -> None:
    """Compare compiled networks with the same uncompiled, on the batch of :func:`steps`."""
    torch.backends.cudnn.benchmark = True
    file = setting.folder / "steps.json"
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    before = next((row for row in rows if "flops" in row), None)
    if before is None:
        raise RuntimeError("the part steps has measured no batch")
    ready = begin(COMPILED, batch_on(setting, before["videos"]), setting, add)
    compared, videos = turns(ready, before["videos"], setting)
    report(ready, compared, videos=videos, flops=before["flops"], setting=setting, add=add)


def _peaks(peak: Any) -> str:
    rates = {"fp32": peak.float32, "tf32": peak.tf32, "half": peak.half}
    found = ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if rate is not None)
    return f"{found} TFLOP/s"
