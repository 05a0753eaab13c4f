"""The one exception for what a user can put right, and what errors come from."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class UserError(ValueError):
    """A mistake in the input: a path, a key, a value, a file.

    The message is one clear sentence that says what is wrong, where, and what to do about it.
    Entry points print it without a traceback and exit with a non-zero status.

    Example:
        >>> raise UserError("data.root=/x does not exist; give a folder of videos")
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: data.root=/x does not exist; give a folder of videos
    """


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def disk_trouble(error: BaseException, *, full: bool = False) -> str:
    """Return what a disk did not do, in the system's words; empty where no disk is to blame.

    Libraries turn a failed write into errors of their own, so what they come from counts.

    Args:
        error: raised while a file was written.
        full: whether to look for a full disk alone, and not for one that refuses as well.

    Example:
        >>> disk_trouble(OSError(errno.ENOSPC, "no room")), disk_trouble(ValueError("no number"))
        ('No space left on device', '')
    """
    numbers = _FULL if full else _FULL | _REFUSED
    found = (getattr(cause, "errno", None) for cause in causes(error))
    return next((os.strerror(number) for number in found if number in numbers), "")
