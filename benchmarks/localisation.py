"""Training a boundary-matching network against its dense form, and AR@AN against nested loops.

Baselines, in the same run and on the same input:

- ``dense``: every proposal's 32 samples by a 100 x 320,000 matrix, then a Conv3d over them; other
  layers, weights and losses are the same. Outputs must agree within 1e-5. Memory is the peak
  resident size of a process that takes a training step, less that of one that only builds networks
  and input.
- ``loops``: over videos, tIoU thresholds and numbers of proposals, as ActivityNet's toolkit does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.retrieval import largest_resident
from benchmarks.timing import compare, report
from vclr_lightning.functional.bmn_losses import bmn_labels, bmn_losses
from vclr_lightning.functional.boundary_matching import matching_weights
from vclr_lightning.functional.proposals import THRESHOLDS, average_recall, temporal_iou
from vclr_lightning.models.bmn import BMN, BMNOutput

T, F, SAMPLES = 100, 200, 32
DENSE, OURS = "dense", "BMN"
LOOPS, METRIC = "loops", "AR@AN"
Arrays = list[np.ndarray]


class DenseBMN(nn.Module):
    """The same network with the samples of all proposals at hand."""

    mask: Tensor

    def __init__(self, model: BMN) -> None:
        super().__init__()
        self.model = model
        weights = matching_weights(T, samples=SAMPLES)
        rows, columns = weights.matrix.indices()
        mask = torch.zeros(T, SAMPLES, T, T)
        cell = weights.duration[rows], weights.start[rows]
        mask[columns % T, columns // T, cell[0], cell[1]] = weights.matrix.values().float()
        self.register_buffer("mask", mask.reshape(T, -1), persistent=False)

    def forward(self, features: Tensor) -> BMNOutput:
        net = self.model
        base = net.base(features)
        x = net.proposal(base)
        sampled = (x @ self.mask).reshape(*x.shape[:2], SAMPLES, T, T)
        cells = nn.functional.conv3d(sampled, net.matching.weight, net.matching.bias)[:, :, 0]
        weight = net.reduce.weight[:, :, None, None]
        grid = nn.functional.conv2d(cells.relu(), weight, net.reduce.bias).relu()
        return BMNOutput(
            maps=torch.sigmoid(net.maps(grid)),
            start=torch.sigmoid(net.start(base))[:, 0],
            end=torch.sigmoid(net.end(base))[:, 0],
        )


def make_batch(batch_size: int, *, positions: int = T, features: int = F) -> dict[str, Tensor]:
    """Return features and labels of random videos."""
    rng = np.random.default_rng(0)
    labels = []
    for _ in range(batch_size):
        start = rng.uniform(0, 0.6, 2)
        labels.append(
            bmn_labels(np.stack([start, start + rng.uniform(0.1, 0.4, 2)], axis=1), positions)
        )
    named = {
        name: torch.from_numpy(np.stack([getattr(one, name) for one in labels])).float()
        for name in ("iou", "start", "end")
    }
    draw = torch.Generator().manual_seed(0)
    return {"features": torch.randn(batch_size, features, positions, generator=draw), **named}


def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[int], None]:
    """Return a step of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)

    def step(number: int) -> None:
        output = model(batch["features"])
        losses = bmn_losses(
            *output,
            iou=batch["iou"],
            start_label=batch["start"],
            end_label=batch["end"],
            generator=torch.Generator(batch["features"].device).manual_seed(abs(number)),
        )
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()

    return step


def build(batch_size: int) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """Return both networks, of the same weights, and a batch."""
    models: dict[str, nn.Module] = {}
    for name in (OURS, DENSE):
        torch.manual_seed(0)
        model = BMN(num_features=F, positions=T, samples=SAMPLES)
        models[name] = model if name == OURS else DenseBMN(model)
    return models, make_batch(batch_size)


def largest_difference(models: dict[str, nn.Module], features: Tensor) -> float:
    """Return by how much the outputs differ, at most."""
    with torch.no_grad():
        outputs = [models[name](features) for name in (OURS, DENSE)]
    return max(float((a - b).abs().max()) for a, b in zip(*outputs, strict=True))


def memory(batch_size: int, threads: int, share: float) -> bool:
    """Print what a training step takes, and return whether ours keeps its limit."""
    sizes = {}
    for case in ("build", DENSE, OURS):
        words = [sys.executable, "-m", "benchmarks.localisation", "--case", case]
        words += ["--batch", str(batch_size), "--threads", str(threads)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        sizes[case] = int(done.stdout)
    dense, ours = (sizes[case] - sizes["build"] for case in (DENSE, OURS))
    limit = share * dense
    table = Table(title="memory of a training step", title_justify="left")
    table.add_column("case")
    for title in ("MB", "at most"):
        table.add_column(title, justify="right")
    table.add_row(DENSE, f"{dense / 1e6:.0f}", "")
    verdict = f"{limit / 1e6:.0f}" if ours <= limit else f"[red]{limit / 1e6:.0f} missed[/red]"
    table.add_row(OURS, f"{ours / 1e6:.0f}", verdict)
    Console().print(table)
    return ours <= limit


def make_proposals(videos: int) -> tuple[Arrays, Arrays]:
    """Return random proposals and truths of some videos."""
    rng = np.random.default_rng(0)

    def segments(n: int) -> np.ndarray:
        start = rng.uniform(0, 80, n)
        return np.stack([start, start + rng.uniform(1, 40, n)], axis=1)

    proposals = [np.c_[segments(100), rng.random(100)] for _ in range(videos)]
    return proposals, [segments(int(rng.integers(1, 4))) for _ in range(videos)]


def recall_by_loops(proposals: Arrays, truths: Arrays) -> np.ndarray:
    """Return recall ``(thresholds, 100)``, a number of proposals at a time."""
    ranked = [p[np.argsort(-p[:, 2])] for p in proposals]
    overlaps = [temporal_iou(t, p[:, :2]) for t, p in zip(truths, ranked, strict=True)]
    recall = np.zeros((len(THRESHOLDS), 100))
    for row, threshold in enumerate(THRESHOLDS):
        for overlap in overlaps:
            found = overlap >= threshold
            for number in range(1, 101):
                used = int(found.shape[1] * (number / 100))  # the toolkit's rounding, too
                recall[row, number - 1] += found[:, :used].any(axis=1).sum()
    return recall / sum(len(t) for t in truths)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2, help="training steps that count")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--videos", type=int, default=100, help="of the metric")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    models, batch = build(arguments.batch)
    if arguments.case:
        if arguments.case in models:
            training_step(models[arguments.case], batch)(0)
        print(largest_resident())
        return 0

    difference = largest_difference(models, batch["features"][:1])
    Console().print(f"outputs differ by {difference:.1e} at most")
    proposals, truths = make_proposals(arguments.videos)
    np.testing.assert_allclose(
        average_recall(proposals, truths).recall, recall_by_loops(proposals, truths)
    )
    steps = compare(
        {name: training_step(model, batch) for name, model in models.items()},
        baseline=DENSE,
        repeats=arguments.repeats,
        targets={OURS: 8},
        warmup=0,
        label="training steps",
    )
    metric = compare(
        {
            LOOPS: lambda _: recall_by_loops(proposals, truths),
            METRIC: lambda _: average_recall(proposals, truths),
        },
        baseline=LOOPS,
        repeats=5,
        targets={METRIC: 20},
        calls={METRIC: 5},
        label="metric",
    )
    title = f"training step, batch {arguments.batch}, T = {T}, F = {F}"
    missed = report({title: steps, f"AR@AN on {arguments.videos} videos": metric})
    within = memory(arguments.batch, arguments.threads, share=0.2)
    return int(bool(missed) or not within or difference > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
