"""What a part of the check measures, written as it is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vclr_lightning.core.errors import causes
from vclr_lightning.core.files import replacing

RUNNING, DONE, FAILED, CUT_OFF = "running", "done", "failed", "cut off"
_LONGEST = 300  # characters of a reason


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how long a part measures.

    Attributes:
        device: that is checked.
        tiny: whether to take sizes for which any CPU is enough.
        seconds: the part's share of the time.
        folder: of the results, where other parts' can be read.
    """

    device: torch.device
    tiny: bool = False
    seconds: float = 60.0
    folder: Path = Path()
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - (time.monotonic() - self.started)

    def clock(self) -> float:
        """Return the time at which the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Record:
    """Results of a part, in a file that is complete after each.

    Args:
        file: where they are written.
        part: name of the part.
    """

    def __init__(self, file: Path, *, part: str) -> None:
        self.file = file
        self.content: dict[str, Any] = {"part": part, "status": RUNNING, "reason": "", "rows": []}
        self._began = time.monotonic()
        self._write()

    def add(self, what: str, shown: str, **values: Any) -> None:
        """Add a row: what was measured, how it is shown, and its values."""
        self.content["rows"].append({"what": what, "shown": shown, **values})
        self._write()

    def end(self, status: str, reason: str = "") -> None:
        """Say how the part ended."""
        self.content |= {"status": status, "reason": reason[:_LONGEST]}
        self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(time.monotonic() - self._began, 1)
        write_json(self.file, self.content)


Add = Callable[..., None]
"""``add(what, shown, **values)``: :meth:`Record.add`."""


def write_json(file: Path, content: Any) -> None:
    """Write plain values, so that no reader finds half a file."""
    with replacing(file) as sink:
        sink.write((json.dumps(content, indent=1) + "\n").encode())


def out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory was too small, as CUDA and cuDNN say it, or a cause of it."""
    words = "out of memory", "ALLOC_FAILED"
    return any(
        isinstance(cause, torch.cuda.OutOfMemoryError)
        or (isinstance(cause, RuntimeError) and any(word in str(cause) for word in words))
        for cause in causes(error)
    )


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore PyTorch's settings of precision, determinism and algorithms after the block."""
    cudnn = torch.backends.cudnn
    precision, exact = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    search, fixed = cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(fixed)
        cudnn.allow_tf32, cudnn.benchmark = exact, search


def measure(part: str, function: Callable[[Setting, Add], None], setting: Setting) -> None:
    """Run a part, whatever happens in it."""
    record = Record(setting.folder / f"{part}.json", part=part)
    try:
        with settings_kept():
            function(setting, record.add)
    except Exception as error:
        said = " ".join(str(error).split())
        why = "the device's memory is full: " if out_of_memory(error) else ""
        record.end(FAILED, f"{why}{type(error).__name__}: {said}")
    else:
        record.end(DONE)


def table(results: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return all results, in at most 80 columns."""
    made = Table(title=title, title_justify="left", width=80, show_lines=False)
    made.add_column("part", overflow="fold", width=12)
    made.add_column("what", overflow="fold", ratio=3)
    made.add_column("found", overflow="fold", ratio=2)
    for result in results:
        rows = result["rows"]
        for number, row in enumerate(rows):
            made.add_row("" if number else result["part"], row["what"], row["shown"])
        if result["status"] != DONE:
            style = "red" if result["status"] == FAILED else "yellow"
            said = f"{result['status']}. {result['reason']}".rstrip(" .")
            made.add_row("" if rows else result["part"], f"[{style}]{said}[/{style}]", "")
        made.add_section()
    return made


def show(made: Table) -> None:
    """Print a table in 80 columns."""
    Console(width=80).print(made)
