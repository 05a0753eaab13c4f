"""What a worker executes of a job: a call for one item, whose errors are judged there."""

from __future__ import annotations

import functools
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import av

from vclr_lightning.core.errors import UserError, causes
from vclr_lightning.data.faults import PAUSES, judged
from vclr_lightning.data.protocols import VideoError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one call of the job's function.

    Attributes:
        values: what the function returned; ``None`` if it failed.
        reason: why it failed.
        transient: whether the system failed rather than the file, so that it may succeed later.
    """

    values: Mapping[str, Any] | None = None
    reason: str | None = None
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Item]):
    """Calls a job's function for an item.

    Attributes:
        function: of the job.
        limit: seconds that the call may take, for executors that can end it.
        seen: paths that the worker must see.
        together: calls that are worth one message to another machine.
    """

    function: Callable[[Item], Mapping[str, Any]]
    limit: float | None = None
    seen: tuple[str, ...] = ()
    together: int = 1

    def __call__(self, name: str, item: Item) -> Answer:
        """Return the answer on an item, which messages call ``name``.

        Raises:
            UserError: a mistake that concerns all items, or the worker does not see the files.
            CodeFault: the function raised anything else but a file's fault.
        """
        _check_seen(self.seen)
        call = functools.partial(self.function, item)
        try:
            return Answer(judged(call, part=self.function, on=name))
        except VideoError as error:
            transient = any(
                isinstance(cause, MemoryError | OSError) and not isinstance(cause, av.FFmpegError)
                for cause in causes(error)
            )
            return Answer(reason=" ".join(str(error).split()), transient=transient)


@contextmanager
def shared_files(reads: Path | None, writes: Path | None) -> Iterator[tuple[str, ...]]:
    """Yield paths by which workers see whether they share this machine's files.

    Args:
        reads: a file of the source.
        writes: an existing folder of the result, which gets a new file for as long as it lasts.
    """
    seen = () if reads is None else (str(reads),)
    if writes is None:
        yield seen
        return
    # A new name: an earlier run may have left the folder on a disk of the worker's own.
    with tempfile.NamedTemporaryFile(dir=writes, prefix=".shared.", suffix=".part") as token:
        yield (*seen, token.name)


@functools.cache  # once for each process, as errors are not kept
def _check_seen(paths: tuple[str, ...]) -> None:
    for path in paths:
        for pause in (*PAUSES, None):  # network file systems show new files late
            if os.path.lexists(path):
                break
            if pause is None:
                raise UserError(
                    f"the worker on {socket.gethostname()} does not see {path}; videos and results "
                    "must lie on a file system that all workers share, at the same path"
                )
            time.sleep(pause)
