"""Run all benchmarks of a CPU, or those named: ``python -m benchmarks decode augmentation``."""

from __future__ import annotations

import importlib
import subprocess
import sys

BENCHMARKS = (
    "decode",
    "prepared",
    "shards",
    "untrimmed",
    "augmentation",
    "sample",
    "manifest",
    "train_step",
    "precision",
    "trainer_overhead",
    "retrieval",
    "svm",
    "localisation",
)
NAMED = ("tf32", "gpu")
"""Run only where they are named."""


def main(names: list[str]) -> int:
    """Run each in a process of its own, and return how many missed a target."""
    if unknown := [name for name in names if name not in BENCHMARKS + NAMED]:
        print(
            f"error: there is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS + NAMED)}"
        )
        return 2
    missed = []
    for name in names or BENCHMARKS:
        title = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]
        print(f"\n== {name}: {title}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            missed.append(name)
    print(f"\nmissed a target: {', '.join(missed)}" if missed else "\nall targets reached")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
