"""A logger that fails must not end the run that it logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from vclr_lightning.core.errors import UserError

logger = logging.getLogger(__name__)

_METHODS = (
    *("log_metrics", "log_hyperparams", "log_graph", "log_summary", "log_result", "log_table"),
    *("log_image", "log_video", "log_confusion", "save", "finalize", "after_save_checkpoint"),
    *("rewind", "sync", "conclude"),
)
_TRIES = 3  # failures in a row, after which a method is called no more


def keep_going(sink: Any, name: str) -> None:
    """Let the methods of a logger warn instead of fail: once, whatever they raise.

    A method that fails three times in a row is called no more, as each call may wait for a service
    that is gone. A :class:`~vclr_lightning.core.errors.UserError` still ends the run: it says what
    the user can mend, such as a full disk.

    Args:
        sink: any logger of Lightning; it stays the same object, of the same class.
        name: of the logger in the configuration.

    Example:
        >>> class Broken:
        ...     def log_metrics(self, metrics, step=None):
        ...         raise ConnectionError("no route")
        >>> sink = Broken()
        >>> keep_going(sink, "mine")
        >>> sink.log_metrics({"loss": 1.0})
    """
    warned: list[str] = []

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        failures = 0

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal failures
            if failures >= _TRIES:
                return None
            try:
                value = method(*args, **kwargs)
            except UserError:
                raise
            except Exception as error:  # whatever a service raises
                failures += 1
                what = " ".join(f"{type(error).__name__}: {error}".split())
                if not warned:
                    logger.warning(
                        "logger.%s fails in %s (%s); the run goes on without what it cannot log",
                        *(name, method.__name__, what),
                    )
                warned.append(what)
                return None
            failures = 0
            return value

        return call

    for method in _METHODS:
        if callable(own := getattr(sink, method, None)):
            setattr(sink, method, guarded(own))
