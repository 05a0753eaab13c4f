"""Decide whether a failure is the file's, the system's, or a bug in a part of the program."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import av

from vclr_lightning.core.errors import CodeFault, UserError, causes
from vclr_lightning.data.protocols import FrameCountChangedError, TransientError, VideoError

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")

FILE_FAULTS = (VideoError, FrameCountChangedError, OSError, MemoryError, av.FFmpegError)
"""What a reader raises if the file is bad or the system cannot read it."""

PAUSES = (0.2, 1.0, 5.0)  # seconds before each retry of a transient error

# Errors of a disk or a network; all others are permanent, such as a missing file.
_TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "EINTR", "ENFILE", "EMFILE", "ENOLCK"),
        *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENOTCONN", "EPIPE", "EREMOTEIO"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)


def is_transient(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, may be transient.

    Example:
        >>> is_transient(OSError(errno.ESTALE, "stale")), is_transient(FileNotFoundError())
        (True, False)
    """
    for cause in causes(error):
        if isinstance(cause, TransientError | TimeoutError | ConnectionError):
            return True
        number = getattr(cause, "errno", None)
        # FFmpeg reports truncated files as EIO, too.
        if number in _TRANSIENT and not (isinstance(cause, av.FFmpegError) and number == errno.EIO):
            return True
    return False


@contextmanager
def blaming(
    part: object, on: object = None, *, but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Convert exceptions of a part of the program to a :class:`CodeFault` that names the part.

    :class:`UserError` and :class:`VideoError` are not converted.

    Args:
        part: a function, or an object whose method is called.
        on: what it works on, if known.
        but: further exceptions that are not converted.

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
    """Describe a value by its type, and its shape and dtype if it has any.

    Example:
        >>> import torch
        >>> described(None), described(torch.zeros((2, 3)))
        ('NoneType', 'Tensor (2, 3) of float32')
    """
    shape, dtype = (getattr(value, name, None) for name in ("shape", "dtype"))
    name = type(value).__name__
    return name if shape is None else f"{name} {tuple(shape)} of {str(dtype).split('.')[-1]}"


def picture(value: object, *shape: int) -> Tensor:
    """Return a transform's result; raise :class:`TypeError` unless it is uint8 of this shape."""
    import torch  # not above: processes that only probe or re-encode files start without it

    if not isinstance(value, torch.Tensor) or value.dtype != torch.uint8 or value.shape != shape:
        raise TypeError(f"it returns {described(value)}, not a tensor {shape} of uint8")
    return value


def retried(
    attempt: Callable[[], Result], *, after: tuple[type[Exception], ...] = FILE_FAULTS
) -> Result:
    """Call ``attempt``; after a transient error among ``after``, pause and call it again."""
    for pause in PAUSES:
        try:
            return attempt()
        except after as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return attempt()


def judged(attempt: Callable[[], Result], *, part: object, on: object) -> Result:
    """Read a video, with retries after transient errors.

    Args:
        attempt: reads it; may be called several times.
        part: what reads it.
        on: the video.

    Raises:
        VideoError: the file is bad, or the system cannot read it.
        CodeFault: ``part`` has a bug.
    """
    try:
        with blaming(part, on, but=FILE_FAULTS):
            return retried(attempt)
    except VideoError:
        raise
    except FILE_FAULTS as error:
        raise VideoError(f"{type(error).__name__}: {error}") from error
