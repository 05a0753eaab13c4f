"""Exact retrieval against the bare matrix product, in time, and all distances sorted, in memory.

The sizes are those of UCF101, split 1: 3,783 test videos look for the 50 nearest of 9,537 training
videos, by 2,048 features each. Baselines, in the same run and on the same features:

- ``matrix product``: ``queries @ gallery.T`` of features that are already normalised;
- memory: all cosine distances and their argsort, as in many evaluations. Measured is the peak
  resident size of a separate process, less that of one that only loads the features. The limit is a
  tenth of the two matrices' size, not of what sorting them takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.timing import compare, report
from vclr_lightning.functional.faiss_search import faiss_neighbours
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours

K = 50
PRODUCT, OURS, FAISS = "matrix product", "retrieval", "retrieval by FAISS"
SORTED = "all distances, argsort"


def make_features(rows: int, dim: int, *, classes: int = 101, seed: int = 0) -> Tensor:
    """Return features as of a network: not negative, correlated, in clusters by class."""
    draw = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    centres = torch.randn(classes, 64, generator=fixed)
    mixing = torch.randn(64, dim, generator=fixed) / 8
    latent = centres[torch.arange(rows) % classes] + torch.randn(rows, 64, generator=draw)
    return (latent @ mixing + 0.3 * torch.randn(rows, dim, generator=draw)).relu()


def full_sort(queries: Tensor, gallery: Tensor) -> Tensor:
    """Return all neighbours of each query, by the matrix of all distances."""
    distances = queries @ gallery.T
    torch.sub(1, distances, out=distances)
    return distances.argsort(dim=1)


def peak(case: str, folder: Path, threads: int) -> int:
    """Return the largest resident size, in bytes, of a process that runs ``case``."""
    words = [sys.executable, "-m", "benchmarks.retrieval", "--case", case, "--folder", str(folder)]
    done = subprocess.run(
        [*words, "--threads", str(threads)], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def run_case(case: str, folder: Path) -> None:
    """Load the features, run one case, and print the largest resident size in bytes."""
    queries, gallery = (
        torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("queries", "gallery")
    )
    for warm_up in (full_sort, partial(cosine_neighbours, k=K)):
        warm_up(queries[:64], gallery[:64])  # code does not count
    if case == OURS:
        cosine_neighbours(queries, gallery, K)
    elif case == SORTED:
        full_sort(queries, gallery)
    print(largest_resident())


def largest_resident() -> int:
    """Return the largest resident size of this process, in bytes.

    On Linux not from ``getrusage``, which counts what the process was forked from as well.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory(queries: Tensor, gallery: Tensor, threads: int) -> bool:
    """Print what the cases take, and return whether ours keeps its limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, features in (("queries", queries), ("gallery", gallery)):
            np.save(folder / f"{side}.npy", features.numpy())
        sizes = {case: peak(case, folder, threads) for case in ("load", SORTED, OURS)}
    limit = len(queries) * len(gallery) * (4 + 8) / 10
    own = sizes[OURS] - sizes["load"]
    table = Table(title="memory beside the features", title_justify="left")
    table.add_column("case")
    for title in ("MB", "at most"):
        table.add_column(title, justify="right")
    table.add_row(SORTED, f"{(sizes[SORTED] - sizes['load']) / 1e6:.1f}", "")
    verdict = f"{limit / 1e6:.1f}" if own <= limit else f"[red]{limit / 1e6:.1f} missed[/red]"
    table.add_row(OURS, f"{own / 1e6:.1f}", verdict)
    Console().print(table)
    return own <= limit


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--queries", type=int, default=3783)
    parser.add_argument("--gallery", type=int, default=9537)
    parser.add_argument("--dim", type=int, default=2048, help="features of a video")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most", type=float, default=1.2, help="times the matrix product's cost")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.case:
        run_case(arguments.case, arguments.folder)
        return 0

    queries = make_features(arguments.queries, arguments.dim, seed=0)
    gallery = make_features(arguments.gallery, arguments.dim, seed=1)
    unit_queries, unit_gallery = normalize(queries, dim=1), normalize(gallery, dim=1)
    cases = {
        PRODUCT: lambda _: unit_queries @ unit_gallery.T,
        OURS: lambda _: cosine_neighbours(queries, gallery, K),
    }
    if importlib.util.find_spec("faiss"):
        cases[FAISS] = lambda _: faiss_neighbours(queries, gallery, K)
    comparison = compare(
        cases,
        baseline=PRODUCT,
        repeats=arguments.repeats,
        targets={OURS: round(1 / arguments.most, 3)},
        label="retrieval",
    )
    title = f"{K} nearest of {arguments.gallery} x {arguments.dim} for {arguments.queries} queries"
    missed = report({title: comparison})
    within = memory(queries, gallery, arguments.threads)
    return int(bool(missed) or not within)


if __name__ == "__main__":
    sys.exit(main())
