"""Run the check, a part after the other, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.record import CUT_OFF, FAILED, Setting, measure, show, table, write_json

PARTS: dict[str, tuple[str, float]] = {
    "agreement": ("agreement", 50),
    "steps": ("steps", 125),
    "loading": ("loading", 60),
    "features": ("evaluation", 20),
    "svm": ("evaluation", 45),
    "retrieval": ("evaluation", 20),
    "localisation": ("evaluation", 15),
    "compiled": ("steps", 85),
}
"""The file of each part, where a function has its name, and its seconds."""
WHOLE = 480.0  # seconds
_START = 12.0  # seconds for a process to start, at most
_ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # of deterministic products
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # no memory lost to fragments
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
NO_GPU = (
    "there is no GPU that torch {version} can use; run this on a machine with one, or try the "
    "script on the CPU: python -m benchmarks.gpu --tiny"
)


def run_part(name: str, setting: Setting) -> None:
    """Run a part in this process."""
    file = PARTS[name][0]
    measure(name, getattr(import_module(f"benchmarks.gpu.{file}"), name), setting)


def start_part(name: str, folder: Path, seconds: float, *, tiny: bool = False) -> None:
    """Run a part in a process of its own, and end it when its time is over."""
    words = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--out", str(folder)]
    words += ["--seconds", str(seconds), *(["--tiny"] if tiny else [])]
    environment = {**_ENVIRONMENT, **os.environ}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        try:
            status = process.wait(seconds + _START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            close(folder, name, CUT_OFF, f"after {seconds:.0f} s, its share of the time")
            return
        except BaseException:
            process.kill()
            raise
    if status:
        close(folder, name, FAILED, f"its process ended with status {status}; see {name}.log")


def close(folder: Path, name: str, status: str, reason: str) -> None:
    """Say how a part ended that could not say so itself."""
    content = read_part(folder, name)
    write_json(folder / f"{name}.json", content | {"status": status, "reason": reason})


def read_part(folder: Path, name: str) -> dict[str, Any]:
    """Return what a part has written; no rows where it has not begun."""
    file = folder / f"{name}.json"
    empty = {"part": name, "rows": [], "status": FAILED, "reason": "it has not begun"}
    return dict(json.loads(file.read_text())) if file.is_file() else empty


def about(device: torch.device) -> dict[str, Any]:
    """Return card, versions and date."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": str(device),
        "card": "CPU: nothing here is about speed",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["card"] = properties.name
        found["memory"] = properties.total_memory
        found["capability"] = [properties.major, properties.minor]
    return found


def check(folder: Path, *, tiny: bool, names: Sequence[str] = (), apart: bool = True) -> int:
    """Run parts, print the table, and return how many did not come to their end.

    Args:
        folder: for ``PART.json``, ``PART.log``, and all of it in ``gpu.json``.
        tiny: on the CPU, in tiny sizes.
        names: of the parts; by default all.
        apart: each in a process of its own.
    """
    device = torch.device("cpu" if tiny else "cuda")
    folder.mkdir(parents=True, exist_ok=True)
    began, facts = time.monotonic(), about(device)
    chosen = list(names or PARTS)
    for name in chosen:
        (folder / f"{name}.json").unlink(missing_ok=True)
    for name in chosen:
        left = WHOLE - (time.monotonic() - began)
        seconds = min(PARTS[name][1], left - _START)
        if seconds <= 0:
            close(folder, name, CUT_OFF, "before it began: no time left")
            continue
        print(f"{name}: {seconds:.0f} s at most", flush=True)
        if apart:
            start_part(name, folder, seconds, tiny=tiny)
        else:
            run_part(name, Setting(device=device, tiny=tiny, seconds=seconds, folder=folder))
        results = [read_part(folder, done) for done in chosen[: chosen.index(name) + 1]]
        write_json(folder / "gpu.json", {**facts, "parts": results})
    results = [read_part(folder, name) for name in chosen]
    write_json(folder / "gpu.json", {**facts, "parts": results})
    title = f"{facts['card']}, torch {facts['torch']}, {facts['date']}"
    show(table(results, title))
    print(f"wrote {folder / 'gpu.json'}")
    return sum(result["status"] != "done" for result in results)


def main(argv: list[str] | None = None) -> int:
    """Check, and return the exit status: 2 without a GPU, 1 where a part did not end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="on the CPU, in tiny sizes")
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=[], help="by default all"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), help="folder of results")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not arguments.tiny and not torch.cuda.is_available():
        print(f"error: {NO_GPU.format(version=torch.__version__)}", file=sys.stderr)
        return 2
    if arguments.part:
        if arguments.tiny:
            torch.set_num_threads(1)
        setting = Setting(
            device=torch.device("cpu" if arguments.tiny else "cuda"),
            tiny=arguments.tiny,
            seconds=arguments.seconds,
            folder=arguments.out,
        )
        run_part(arguments.part, setting)
        return 0
    return int(bool(check(arguments.out, tiny=arguments.tiny, names=arguments.parts)))


if __name__ == "__main__":
    sys.exit(main())
