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
_TRIES = 3  # failures in a row, after which a logger is asked no more


def keep_going(sink: Any, name: str) -> None:
    """Let the methods of a logger warn instead of fail: once, whatever they raise.

    After three failures in a row the logger is asked no more, as each may wait for a service that
    is gone. A :class:`~vclr_lightning.core.errors.UserError` still ends the run: it says what the
    user can mend, such as a full disk.

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
    failures = [0, 0]  # ever, and in a row

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if failures[1] >= _TRIES:
                return None
            try:
                value = method(*args, **kwargs)
            except UserError:
                raise
            except Exception as error:  # whatever a service raises
                failures[0], failures[1] = failures[0] + 1, failures[1] + 1
                if failures[0] == 1:
                    what = " ".join(f"{type(error).__name__}: {error}".split())
                    logger.warning(
                        "logger.%s fails; the run goes on, and lacks what this logger cannot take,"
                        " or all further values if it fails %d times in a row (%s)",
                        *(name, _TRIES, what),
                    )
                return None
            failures[1] = 0
            return value

        return call

    for method in _METHODS:
        if callable(own := getattr(sink, method, None)):
            setattr(sink, method, guarded(own))
