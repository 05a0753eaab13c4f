"""A training step in each precision and format, against the released code's, in turns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.peaks import find_peak, peak_rate
from benchmarks.gpu.record import Add, Setting, out_of_memory
from benchmarks.timing import compare
from benchmarks.train_step import OurStep, ReleasedStep, make_batch, make_module
from vclr_lightning.bench.largest_batch import try_batches
from vclr_lightning.core.lightning import move_data_to_device
from vclr_lightning.models import TinyBackbone, TorchvisionResNet

_SHARE = 0.8  # of the time that is left, for the turns


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to take the step.

    Attributes:
        name: of the row.
        form: fp32, tf32 or bf16.
        released: in the released code's way.
        channels_last: memory format.
        compiled: by torch.compile.
    """

    name: str
    form: str = "fp32"
    released: bool = False
    channels_last: bool = False
    compiled: bool = False


BASELINE = Case(name="as released, TF32", form="tf32", released=True)
CASES = (
    BASELINE,
    Case(name="as released, fp32", released=True),
    Case(name="fp32"),
    Case(name="TF32", form="tf32"),
    Case(name="TF32, channels_last", form="tf32", channels_last=True),
    Case(name="bf16", form="bf16"),
    Case(name="bf16, channels_last", form="bf16", channels_last=True),
    Case(name="bf16, channels_last, compile", form="bf16", channels_last=True, compiled=True),
)


@contextmanager
def computing(form: str, device: torch.device) -> Iterator[None]:
    """Compute in fp32, tf32 or bf16 within the block."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if form == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = form == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=form == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def build(case: Case, setting: Setting) -> Callable[[Any, int], Any]:
    """Return the step of a case, on the device."""
    torch.manual_seed(0)
    network: nn.Module = (
        TinyBackbone(width=8, stages=1) if setting.tiny else TorchvisionResNet(name="resnet50")
    )
    compiled: Any = case.compiled
    if case.compiled and setting.device.type == "cpu":
        compiled = {"backend": "eager"}  # a CPU takes minutes to compile
    module = make_module(
        network,
        64 if setting.tiny else 131072,
        channels_last=case.channels_last,
        compile=compiled,
    ).to(setting.device)
    step = (ReleasedStep if case.released else OurStep)(module)

    def run(batch: Any, number: int) -> Any:
        with computing(case.form, setting.device):
            return step(batch, number)

    return run


def batch_on(setting: Setting, videos: int) -> Any:
    """Return a batch on the device."""
    return move_data_to_device(make_batch(videos, 32 if setting.tiny else 224, 0), setting.device)


def clear() -> None:
    """Give back what the device has cached."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def fits(case: Case, setting: Setting) -> Callable[[int], bool]:
    """Return whether two steps of a case find memory for so many videos."""

    def attempt(videos: int) -> bool:
        try:
            step, batch = build(case, setting), batch_on(setting, videos)
            for number in range(2):
                step(batch, number)
            setting.clock()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            step = batch = None
            clear()
        return True

    return attempt


def largest(case: Case, setting: Setting, *, first: int) -> int:
    """Return the largest power of two of videos that fits."""
    most = 4 if setting.tiny else 4096
    return int(try_batches(fits(case, setting), first=first, most=most).videos or 0)


def peak_memory(step: Callable[[Any, int], Any], batch: Any, setting: Setting) -> int:
    """Return the bytes that a step needs beside what was allocated before."""
    if setting.device.type != "cuda":
        step(batch, 0)
        return 0
    before = torch.cuda.memory_allocated(setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    step(batch, 0)
    setting.clock()
    return int(torch.cuda.max_memory_allocated(setting.device)) - before


def steps(setting: Setting, add: Add) -> None:
    """Find the largest batches, take turns, and count operations against the card's peak."""
    cuda = setting.device.type == "cuda"
    card = torch.cuda.get_device_name(setting.device) if cuda else "CPU"
    torch.backends.cudnn.benchmark = True
    first = 2 if setting.tiny else 64
    ours = largest(Case(name="fp32"), setting, first=first)
    theirs = largest(BASELINE, setting, first=max(1, ours))
    videos = min(ours, theirs)
    add(
        "largest batch, fp32: ours, as released",
        f"{ours}, {theirs} videos",
        ours=ours,
        released=theirs,
    )
    if not videos:
        raise RuntimeError("not even one video fits the device")
    batch = batch_on(setting, videos)
    ready: dict[str, Callable[[Any, int], Any]] = {}
    slowest: list[float] = []
    for case in CASES:
        if slowest and setting.left() < 4 * sum(slowest):
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
            slowest.append(setting.clock() - begun)
            ready[case.name] = step
        except Exception as error:  # such as a compiler that is missing
            said = " ".join(str(error).split())[:200]
            add(case.name, f"failed: {type(error).__name__}: {said}", failed=True)
        del step
        clear()
    with FlopCounterMode(display=False) as counter:
        next(ready[c.name] for c in CASES if not c.compiled and not c.released)(batch, 0)
    flops = counter.get_total_flops() / videos
    add("operations of a step, a video", f"{flops / 1e9:.4g} GFLOP", flops=flops)
    round_time = max(sum(slowest), 1e-6)
    repeats = 2 if setting.tiny else int(np.clip(_SHARE * setting.left() / round_time - 1, 3, 21))
    compared = compare(
        {
            name: lambda number, step=step: step(batch, max(number, 0))
            for name, step in ready.items()
        },
        baseline=BASELINE.name,
        repeats=repeats,
        clock=setting.clock,
        label="steps in turns",
    )
    peak = find_peak(card)
    if peak is not None:
        add(f"peak of {peak.name} ({peak.source})", _peaks(peak), **peak._asdict())
    for case in (case for case in CASES if case.name in ready):
        seconds = float(np.median(compared.seconds[case.name]))
        ratio = compared.ratio(case.name)
        rate, best = flops * videos / seconds / 1e12, peak_rate(peak, case.form)
        mfu = None if best is None else rate / best
        add(
            f"{case.name}: a step",
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
            ratio=ratio.value,
            interval=[ratio.low, ratio.high],
            tflops=rate,
            mfu=mfu,
        )


def _peaks(peak: Any) -> str:
    rates = {"fp32": peak.float32, "tf32": peak.tf32, "half": peak.half}
    found = ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if rate is not None)
    return f"{found} TFLOP/s"
