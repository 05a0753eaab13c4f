"""Loading and iterating a large manifest: time, and memory of a data worker.

    python -m benchmarks.manifest

Baseline: the same rows as a list of Python tuples, sent to the worker as data sets usually send
theirs. Memory is what a spawned process does not share (``Private_Dirty``), so without the pages of
the mapped file. The index work of an epoch is what the training process does for the order of its
samples and batches, compared with torch's own samplers over the list. Rows are looked up by the
workers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler

from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest

LOAD_LIMIT = 1.0  # seconds
MEMORY_LIMIT = 0.5  # MB that reading all rows may add
EPOCH_LIMIT = 2.0  # seconds
EPOCHS = 3
BATCH = 512
CLASSES = 400
FEW = 200


def write(file: Path, rows: int) -> Path:
    """Write a manifest of made-up rows with the names and sizes that Kinetics has."""
    made = (
        Row(
            path=f"train/class number {k % CLASSES}/{k:011d}_000017_000027.mp4",
            group=f"{k:011d}",
            label=k % CLASSES,
            duration=10.0,
            num_frames=300,
            exact=k % 2 == 0,
            fps=30.0,
            width=340,
            height=256,
            codec="h264",
            keyframe_interval=250.0,
            size=10**6 + k,
            mtime_ns=10**18 + k,
        )
        for k in range(rows)
    )
    classes = tuple(f"class number {k}" for k in range(CLASSES))
    return write_manifest(file, made, Info(root=file.parent, classes=classes))


def private_megabytes() -> float:
    """Return the memory that only this process has written to."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.findall(r"Private_Dirty:\s+(\d+)", text)[0]) / 1024


def read_manifest(manifest: Manifest, i: int) -> object:
    return (
        manifest.path(i),
        manifest.label(i),
        manifest.num_frames(i),
        manifest.video_id(i),
        manifest.group_id(i),
    )


def read_list(videos: list[tuple[object, ...]], i: int) -> object:
    return videos[i]


def in_worker(data: bytes, read: Callable[[object, int], object]) -> tuple[float, float, float]:
    """Return the MB that holding the videos, reading few and reading all of them adds."""
    read_manifest(pickle.loads(_warm.pop()), 0)  # imports do not count
    for k in range(400_000):  # nor Python's table of interned names, which pathlib fills
        Path(f"made/{k}/up")
    start = private_megabytes()
    videos = pickle.loads(data)
    held = private_megabytes()
    number = len(videos)
    for i in range(0, number, max(1, number // FEW)):
        read(videos, i)
    few = private_megabytes()
    for i in range(number):
        read(videos, i)
    return held - start, few - held, private_megabytes() - few


def order_of_manifest(data: bytes) -> Callable[[int], None]:
    """Return what goes through the keys of an epoch."""
    batches = EpochBatches(len(pickle.loads(data)), batch_size=BATCH)

    def run(epoch: int) -> None:
        batches.set_epoch(epoch)
        assert sum(len(keys) for keys in batches) == len(batches) * BATCH

    return run


def rows_of_manifest(data: bytes) -> Callable[[int], None]:
    """Return what goes through the keys of an epoch, and looks up their rows."""
    manifest: Manifest = pickle.loads(data)
    batches = EpochBatches(len(manifest), batch_size=BATCH)

    def run(epoch: int) -> None:
        batches.set_epoch(epoch)
        for keys in batches:
            for _, row in keys:
                read_manifest(manifest, row)

    return run


def order_of_list(data: bytes) -> Callable[[int], None]:
    """Return what goes through the indices of torch's samplers."""
    videos: list[tuple[object, ...]] = pickle.loads(data)

    def run(epoch: int) -> None:
        order = RandomSampler(videos, generator=torch.Generator().manual_seed(epoch))
        batches = BatchSampler(order, BATCH, drop_last=True)
        assert sum(len(rows) for rows in batches) == len(batches) * BATCH

    return run


def epochs(data: bytes, prepare: Callable[[bytes], Callable[[int], None]]) -> tuple[float, float]:
    """Return the median seconds of an epoch, and the MB by which some epochs grow."""
    run = prepare(data)
    for k in range(400_000):  # as above
        Path(f"made/{k}/up")
    run(0)  # imports and first use do not count
    before, seconds = private_megabytes(), []
    for epoch in range(1, EPOCHS + 1):
        started = time.perf_counter()
        run(epoch)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), private_megabytes() - before


_warm: list[bytes] = []


def _initialise(small: bytes) -> None:
    _warm.append(small)


def spawned(small: bytes, data: bytes, read: Callable[..., object]) -> tuple[float, float, float]:
    with multiprocessing.get_context("spawn").Pool(1, _initialise, (small,)) as pool:
        return pool.apply(in_worker, (data, read))


def spawned_epochs(
    data: bytes, prepare: Callable[[bytes], Callable[[int], None]]
) -> tuple[float, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(epochs, (data, prepare))


def load_seconds(file: Path) -> float:
    start = time.perf_counter()
    manifest = Manifest.load(file)
    assert manifest.labels.max() == CLASSES - 1
    read_manifest(manifest, len(manifest) - 1)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=240_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)

    from rich.console import Console
    from rich.table import Table

    from benchmarks.timing import cpu_name

    console = Console()
    console.print(f"processor: {cpu_name()}")
    with tempfile.TemporaryDirectory() as folder:
        small = pickle.dumps(Manifest.load(write(Path(folder) / "small.arrow", 1000)))
        started = time.perf_counter()
        file = write(Path(folder) / "large.arrow", args.rows)
        written = time.perf_counter() - started
        seconds = statistics.median(load_seconds(file) for _ in range(args.repeats))
        manifest = Manifest.load(file)
        half = manifest.select(np.random.default_rng(0).random(args.rows) < 0.5)
        rows = [read_manifest(manifest, i) for i in range(len(manifest))]
        cases: dict[str, tuple[bytes, Callable[..., object]]] = {
            "manifest": (pickle.dumps(manifest), read_manifest),
            "manifest, a random half": (pickle.dumps(half), read_manifest),
            "list of tuples": (pickle.dumps(rows), read_list),
        }
        table = Table(title=f"{args.rows:,} videos: private memory of a spawned worker, MB")
        for heading in ("what", "pickled", "held", "few rows read", "all rows read"):
            table.add_column(heading, justify="right")
        reached = seconds < LOAD_LIMIT
        for name, (data, read) in cases.items():
            held, few, every = spawned(small, data, read)
            cells = (f"{value:.2f}" for value in (len(data) / 2**20, held, few, every))
            table.add_row(name, *cells)
            reached &= read is read_list or held + few + every < MEMORY_LIMIT
        console.print(
            f"{args.rows:,} rows: written in {written:.1f} s, {file.stat().st_size / 1e6:.0f} MB; "
            f"loaded, labels and last row read in {1000 * seconds:.1f} ms (at most 1 s)"
        )
        console.print(table)
        of_list, _ = spawned_epochs(cases["list of tuples"][0], order_of_list)
        took, grown = spawned_epochs(cases["manifest"][0], order_of_manifest)
        looking, grown_looking = spawned_epochs(cases["manifest"][0], rows_of_manifest)
        grown = max(grown, grown_looking)
        console.print(
            f"an epoch's order and batches: {took:.2f} s (at most {EPOCH_LIMIT:g}; torch's "
            f"samplers over the list: {of_list:.2f}); with every row looked up, which the "
            f"workers share: {looking:.2f} s; memory grows by {grown:.2f} MB in {EPOCHS} epochs"
        )
        reached &= took < EPOCH_LIMIT and grown < MEMORY_LIMIT
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
