"""A process that probes one file after another, so that a crashing decoder takes only itself down.

It reads lines of JSON: first the settings, which it answers with ``ready``, then a path each, which
it answers with ``{"values": ...}`` or ``{"reason": ...}``, with ``"passing"`` where it may be read
another time; with ``{"fatal": ...}`` where no further file can do better, or a ``"fault"`` of code.
:mod:`vclr_lightning.data.indexing.pool` starts it. A module that does other work on files answers
likewise, by :func:`serve`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av

from vclr_lightning.core.errors import CodeFault, UserError, causes
from vclr_lightning.data.faults import judged
from vclr_lightning.data.indexing.framefolder import probe_frames
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe


def find(path: Path, *, decode: bool, max_damaged: float, frames: str | None) -> dict[str, Any]:
    """Probe one video file, or a folder of frames where their template is given."""
    if frames is not None:
        return probe_frames(path, frames)
    return asdict(probe(path, decode=decode, max_damaged=max_damaged))


def main() -> None:
    """Probe until the input ends."""
    serve(find)


def serve(work: Callable[..., dict[str, Any]]) -> None:
    """Answer with ``work(path, **settings)`` for each path of the input, until it ends."""
    with os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1) as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library's output is no answer
        settings = json.loads(sys.stdin.readline())
        answers.write("ready\n")
        for line in sys.stdin:
            answers.write(json.dumps(_answer(work, Path(json.loads(line)), settings)) + "\n")


def _answer(
    work: Callable[..., dict[str, Any]], path: Path, settings: dict[str, Any]
) -> dict[str, Any]:
    try:
        return {"values": judged(lambda: work(path, **settings), part=work, on=path)}
    except VideoError as error:
        reason = {"reason": " ".join(str(error).split())}
        return reason | {"passing": True} if _is_of_system(error) else reason
    except UserError as error:
        return {"fatal": str(error)}
    except CodeFault as fault:
        return {"fault": fault.args, "notes": fault.__notes__}


def _is_of_system(error: BaseException) -> bool:
    """Whether the system failed, rather than the file: another time it may be read."""
    return any(
        isinstance(cause, MemoryError | OSError) and not isinstance(cause, av.FFmpegError)
        for cause in causes(error)
    )
