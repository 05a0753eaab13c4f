"""Feature extraction, the linear SVM at the size of Kinetics-400, retrieval, and localisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks.gpu.cases import computing
from benchmarks.gpu.record import Add, Setting
from benchmarks.localisation import DENSE, OURS, build, make_batch, training_step
from benchmarks.svm import made_features
from benchmarks.timing import compare
from vclr_lightning.evaluation.encoders import frame_encoder
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.functional.svm import fit_linear_svm
from vclr_lightning.models import TinyBackbone, TorchvisionResNet
from vclr_lightning.models.bmn import BMN

K = 50
TOLERANCE = 1e-4


def timed(setting: Setting, call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes on the device, and its result."""
    begun = setting.clock()
    found = call()
    return setting.clock() - begun, found


def _repeat(encode: Callable[[Tensor], Tensor], frames: Tensor, times: int) -> None:
    for _ in range(times):
        encode(frames)


def features(setting: Setting, add: Add) -> None:
    """Measure frames a second of a frozen network."""
    chunk, size, times = (4, 32, 2) if setting.tiny else (256, 224, 10)
    frames = torch.randint(0, 256, (chunk, 3, 1, size, size), dtype=torch.uint8)
    frames = frames.to(setting.device)
    torch.backends.cudnn.benchmark = True
    for last in (False, True):
        network: Any = TinyBackbone(width=8) if setting.tiny else TorchvisionResNet(name="resnet50")
        kind = torch.channels_last if last else torch.contiguous_format
        encode = frame_encoder(network.to(setting.device, memory_format=kind))
        for form in ("fp32", "tf32", "bf16"):
            with computing(form, setting.device):
                encode(frames)
                encode(frames)
                seconds, _ = timed(setting, partial(_repeat, encode, frames, times))
            rate = times * chunk / seconds
            add(
                f"{form}{', channels_last' if last else ''}, {chunk} frames of {size} px",
                f"{rate:.4g} images/s",
                images_per_s=rate,
            )


def svm(setting: Setting, add: Add) -> None:
    """Fit the linear SVM."""
    rows, dim, classes = (60, 16, 3) if setting.tiny else (240_000, 2048, 400)
    x, label = made_features(rows, dim, classes, device=setting.device)
    seconds, fit = timed(
        setting, lambda: fit_linear_svm(x, label, num_classes=classes, tolerance=TOLERANCE)
    )
    gap = float((fit.gap / fit.objective).max())
    add(
        f"linear SVM, {rows:,} x {dim:,}, {classes} classes",
        f"{seconds:.3g} s, relative gap {gap:.0e}",
        seconds=seconds,
        gap=gap,
        solved=gap <= TOLERANCE,
    )


def retrieval(setting: Setting, add: Add) -> None:
    """Find nearest neighbours among the videos of Kinetics-400, against the bare product."""
    queries, rows, dim, classes = (20, 60, 16, 3) if setting.tiny else (19_800, 240_000, 2048, 400)
    gallery, _ = made_features(rows, dim, classes, device=setting.device)
    asked, _ = made_features(queries, dim, classes, seed=1, device=setting.device)
    unit, chunk = normalize(gallery, dim=1), 4096

    def product(_: int) -> None:  # in full precision, as the neighbours are found
        with computing("fp32", setting.device):
            for part in normalize(asked, dim=1).split(chunk):
                part @ unit.T

    found = compare(
        {"product": product, "ours": lambda _: cosine_neighbours(asked, gallery, K)},
        baseline="product",
        repeats=2,
        clock=setting.clock,
        label="retrieval",
    )
    seconds = float(np.median(found.seconds["ours"]))
    add(
        f"{K} nearest of {rows:,} x {dim:,} for {queries:,} queries",
        f"{seconds:.3g} s, {1 / found.ratio('ours').value:.2f} x the bare product",
        seconds=seconds,
        ratio=found.ratio("ours").value,
    )


def localisation(setting: Setting, add: Add) -> None:
    """Train BMN against its dense form."""
    videos = 1 if setting.tiny else 8
    models: dict[str, nn.Module] = {}
    if setting.tiny:  # without the dense form, whose matrix of samples alone is 128 MB
        models[OURS] = BMN(num_features=8, positions=16, samples=4)
        batch = make_batch(videos, positions=16, features=8)
    else:
        models, batch = build(videos)
    batch = {name: value.to(setting.device) for name, value in batch.items()}
    runs = {name: training_step(model.to(setting.device), batch) for name, model in models.items()}
    if setting.tiny:
        seconds, _ = timed(setting, lambda: runs[OURS](0))
        add("BMN, a step", f"{1e3 * seconds:.4g} ms a batch of {videos}", seconds=[seconds])
        return
    found = compare(
        runs, baseline=DENSE, repeats=5, clock=setting.clock, label="localisation steps"
    )
    ratio = found.ratio(OURS)
    add(
        f"BMN, a step of {videos} videos; against dense samples",
        f"{1e3 * float(np.median(found.seconds[OURS])):.4g} ms; {ratio.value:.2f} x faster",
        seconds=found.seconds[OURS].tolist(),
        ratio=ratio.value,
        interval=[ratio.low, ratio.high],
    )
