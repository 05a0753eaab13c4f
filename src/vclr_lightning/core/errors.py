"""The exceptions that end a run: a user's mistake, or a fault of code; and their causes."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
# Control codes, by which a terminal changes colours, moves the cursor or renames the window.
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}


class UserError(ValueError):
    """A mistake in the input: a path, a key, a value, a file.

    The message is one clear sentence that says what is wrong, where, and what to do about it.
    Entry points print it without a traceback and exit with status 2.

    Example:
        >>> raise UserError("data.root=/x does not exist; give a folder of videos")
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: data.root=/x does not exist; give a folder of videos
    """


class CodeFault(Exception):  # noqa: N818  # not every error is one
    """A fault of code, this package's or of a class given to it, and not of any file.

    The message says which code fails, where, on what, and how; the traceback is a note, which
    survives pickling between processes. Entry points print both and exit with status 1.

    Args:
        who: the function or class, with file and line.
        how: the exception that it raised.
        what: the video, say, that it was processing, where that is known.

    Example:
        >>> print(CodeFault("Middle (/home/me/middle.py:12)", "IndexError: 3", "a.mp4"))
        Middle (/home/me/middle.py:12) fails on a.mp4: IndexError: 3
    """

    def __init__(self, who: str, how: str, what: str = "") -> None:
        super().__init__(who, how, what)

    def __str__(self) -> str:
        who, how, what = self.args
        return f"{who} fails{what and f' on {what}'}: {how}"

    @classmethod
    def of(cls, part: object, error: Exception) -> CodeFault:
        """Return the fault of a function, or of an object whose method raised ``error``."""
        while isinstance(part, functools.partial):
            part = part.func
        name = getattr(part, "__qualname__", type(part).__qualname__)
        fault = cls(
            f"{name} ({_place(part, error)})", f"{type(error).__name__}: {error}".rstrip(": ")
        )
        fault.add_note("".join(traceback.format_exception(error)))
        return fault

    def on(self, what: object) -> CodeFault:
        """Add what the code was processing, unless that is known already."""
        if what is not None and not self.args[2]:
            self.args = (*self.args[:2], str(what))
        return self

    def report(self) -> str:
        """Return the message with the traceback."""
        return "\n".join((str(self), *self.__notes__)).rstrip()


def check_named(
    key: str,
    parts: object,
    *,
    what: str,
    fits: Callable[[object], bool],
    advice: str = "give it a _target_, or leave it out",
) -> None:
    """Check the parts of one kind by name, as a configuration gives them.

    Args:
        key: of all of them in the configuration.
        parts: what was given.
        what: a word for one of them.
        fits: whether an object is one.
        advice: what to do where one is none.

    Raises:
        UserError: there is no mapping, or one of its values is no such part.

    Example:
        >>> check_named("samplers", {"a": None}, what="sampler", fits=callable)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: samplers.a is null, not a sampler; give it a \
_target_, or leave it out
    """
    if not isinstance(parts, Mapping):
        raise UserError(f"{key} must be a mapping from names to {what}s, not {_shown(parts)}")
    for name, part in parts.items():
        if not isinstance(name, str):
            raise UserError(f"{key}.{name} has a number for a name; give it a word")
        if fits(part):
            continue
        if isinstance(part, functools.partial) or type(part).__name__ == "_DeferredTarget":
            advice = "leave out its _partial_"  # Hydra's own partial
        article = "an" if what[0] in "aeiou" else "a"
        raise UserError(f"{key}.{name} is {_shown(part)}, not {article} {what}; {advice}")


def _shown(value: object) -> str:
    if value is None:
        return "null"
    plain = isinstance(value, str | int | float | list | Mapping)
    return repr(value) if plain and len(repr(value)) < 80 else f"of type {type(value).__name__}"


def _place(part: object, error: Exception) -> str:
    """File and line of the innermost call in the part's own package, or else of its definition."""
    package = str(getattr(part, "__module__", "")).partition(".")[0]
    calls = list(traceback.walk_tb(error.__traceback__))
    own = [c for c in calls if c[0].f_globals.get("__name__", "").partition(".")[0] == package]
    if not own:  # as where its return value is at fault
        kind = part if inspect.isroutine(part) or inspect.isclass(part) else type(part)
        with suppress(OSError, TypeError):
            return f"{inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]}"
    frame, line = (own or calls)[-1]
    return f"{frame.f_code.co_filename}:{line}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the one it was raised from, and so on."""
    seen: BaseException | None = error
    known: set[int] = set()
    while seen is not None and id(seen) not in known:  # a chain may be a ring
        known.add(id(seen))
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def disk_failure(error: BaseException, *, full: bool = False) -> str:
    """Return how a disk failed, in the system's words; empty where no disk is to blame.

    Libraries wrap failed writes in errors of their own, so the causes count. With ``full``, look
    for a full disk only, not for one that refuses writes for another reason.

    Example:
        >>> disk_failure(OSError(errno.ENOSPC, "no room")), disk_failure(ValueError("no number"))
        ('No space left on device', '')
    """
    numbers = _FULL if full else _FULL | _REFUSED
    found = (getattr(cause, "errno", None) for cause in causes(error))
    return next((os.strerror(number) for number in found if number in numbers), "")


def escape_controls(text: str) -> str:
    """Escape the control codes of terminals, which a file name may contain.

    Example:
        >>> print(escape_controls("a" + chr(27) + "[2Jb.mp4"))
        a\\x1b[2Jb.mp4
    """
    return text.translate(_CONTROLS)
