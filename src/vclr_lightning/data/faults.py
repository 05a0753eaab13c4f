"""Whose fault it is when a video gives no sample: the file's, the system's, or that of code."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import av
import torch
from torch import Tensor

from vclr_lightning.core.errors import CodeFault, UserError, causes
from vclr_lightning.data.protocols import FrameCountChangedError, PassingError, VideoError

Result = TypeVar("Result")

FILE_FAULTS = (VideoError, FrameCountChangedError, OSError, MemoryError, av.FFmpegError)
"""What a reader raises where the file is to blame, or the system that should give its bytes."""

PAUSES = (0.2, 1.0, 5.0)  # seconds, before what may have passed is tried again

# Of a disk or a network; the others say that a file is not there, or may not be read.
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "EINTR", "ENFILE", "EMFILE", "ENOLCK"),
        *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENOTCONN", "EPIPE", "EREMOTEIO"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)


def may_pass(error: BaseException) -> bool:
    """Return whether an error, or what it was raised from, is one that often passes.

    Example:
        >>> may_pass(OSError(errno.ESTALE, "stale file handle")), may_pass(FileNotFoundError())
        (True, False)
    """
    for cause in causes(error):
        if isinstance(cause, PassingError | TimeoutError | ConnectionError):
            return True
        number = getattr(cause, "errno", None)
        # By EIO FFmpeg also means that a file is cut off.
        if number in _PASSING and not (isinstance(cause, av.FFmpegError) and number == errno.EIO):
            return True
    return False


@contextmanager
def blaming(
    part: object, on: object = None, *, but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what a part of the program raises into a :class:`CodeFault` that says where.

    Mistakes of the user, and what the part says of the video, pass.

    Args:
        part: a function, or an object whose method is called.
        on: what it is at work on, where that is known.
        but: further exceptions that pass.

    Example:
        >>> def shuffle(indices):
        ...     raise ValueError("no indices")
        >>> try:
        ...     with blaming(shuffle, "a.mp4"):
        ...         shuffle([])
        ... except CodeFault as fault:
        ...     print(fault)  # doctest: +ELLIPSIS
        shuffle (...) fails on a.mp4: ValueError: no indices
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, CodeFault):
            error.on(on)
        if isinstance(error, (CodeFault, UserError, VideoError, *but)):
            raise
        raise CodeFault.of(part, error).on(on) from None


def described(value: object) -> str:
    """Say what a value is: its type, and its shape and dtype, if it has any.

    Example:
        >>> described(None), described(torch.zeros((2, 3)))
        ('NoneType', 'Tensor (2, 3) of float32')
    """
    shape, dtype = (getattr(value, name, None) for name in ("shape", "dtype"))
    name = type(value).__name__
    return name if shape is None else f"{name} {tuple(shape)} of {str(dtype).split('.')[-1]}"


def picture(value: object, *shape: int) -> Tensor:
    """Return what a transform gave, if it is a uint8 tensor of this shape.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.shape != shape:
        raise TypeError(f"it gives {described(value)}, not a tensor {shape} of uint8")
    return value


def retried(
    attempt: Callable[[], Result], *, after: tuple[type[Exception], ...] = FILE_FAULTS
) -> Result:
    """Call ``attempt``, again after a pause where it fails by what may pass.

    Args:
        attempt: what may be called several times.
        after: exceptions that may pass.
    """
    for pause in PAUSES:
        try:
            return attempt()
        except after as error:
            if not may_pass(error):
                raise
        time.sleep(pause)
    return attempt()


def judged(attempt: Callable[[], Result], *, part: object, on: object) -> Result:
    """Read a video, again after a pause where that fails by what may pass.

    Args:
        attempt: reads it; it may be called several times.
        part: what reads it.
        on: the video.

    Raises:
        VideoError: by the fault of the file, or of the system that should give its bytes.
        CodeFault: by the fault of the part.
    """
    try:
        with blaming(part, on, but=FILE_FAULTS):
            return retried(attempt)
    except VideoError:
        raise
    except FILE_FAULTS as error:
        raise VideoError(f"{type(error).__name__}: {error}") from error
