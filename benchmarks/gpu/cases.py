"""Ways to take a training step, and whether one fits the device."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.record import Setting, out_of_memory
from benchmarks.train_step import OurStep, ReleasedStep, make_batch, make_module
from vclr_lightning.bench.largest_batch import try_batches
from vclr_lightning.core.lightning import move_data_to_device
from vclr_lightning.models import TinyBackbone, TorchvisionResNet


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
)
COMPILED = (
    CASES[-1],
    Case(name="bf16, channels_last, compile", form="bf16", channels_last=True, compiled=True),
)

Ready = dict[Case, Callable[[Any, int], Any]]
"""The step of each case, ready to be taken."""


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
        except Exception as error:
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
