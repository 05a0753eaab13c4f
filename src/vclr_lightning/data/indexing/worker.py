"""A process that probes one file after another, so that a crashing decoder takes only itself down.

It reads lines of JSON: first the settings, which it answers with ``ready``, then a path each, which
it answers with ``{"values": ...}`` or ``{"reason": ...}``, with ``"passing"`` where it may be read
another time. :mod:`vclr_lightning.data.indexing.pool` starts it. A module that does other work
on files answers likewise, by :func:`serve`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vclr_lightning.data.indexing.framefolder import probe_frames
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe


def answer(path: Path, *, decode: bool, frames: str | None) -> dict[str, Any]:
    """Probe one video file, or a folder of frames where their template is given."""
    try:
        if frames is not None:
            return {"values": probe_frames(path, frames)}
        return {"values": asdict(probe(path, decode=decode))}
    except VideoError as error:
        reason = {"reason": str(error)}
        return reason | {"passing": True} if _may_pass(error) else reason
    except Exception as error:  # whatever a library raises, the file cannot be used
        return {"reason": f"{type(error).__name__}: {error}"}


def _may_pass(error: BaseException | None) -> bool:
    """Whether the system failed, rather than the file: another time it may be read."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
            return True
        error = error.__cause__
    return False


def main() -> None:
    """Probe until the input ends."""
    serve(answer)


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Call ``answer(path, **settings)`` for each path of the input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1) as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library's output is no answer
        settings = json.loads(sys.stdin.readline())
        answers.write("ready\n")
        for line in sys.stdin:
            answers.write(json.dumps(answer(Path(json.loads(line)), **settings)) + "\n")
