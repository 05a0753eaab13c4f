"""What the loggers of a run are told: its settings when it begins, and how it ended."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vclr_lightning.core.errors import UserError

logger = logging.getLogger(__name__)

_SIGNALLED = 128  # exit statuses above are those of signals
_REPEATED = ("logger", "debug")  # nothing of the run itself


def hyper_parameters(config: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return what a dashboard filters and groups runs by.

    The resolved configuration, without the stage's call, which repeats it; and under ``choice``
    the option of each group, such as ``choice.objective``.

    Args:
        config: resolved, as plain values.
        chosen: option of each group.

    Example:
        >>> config = {"seed": 0, "stage": {"name": "pretrain", "run": {"module": "..."}}}
        >>> hyper_parameters(config, {"objective": "vclr"})
        {'seed': 0, 'stage': 'pretrain', 'choice': {'objective': 'vclr'}}
    """
    values = {key: value for key, value in config.items() if key not in _REPEATED}
    return values | {"stage": config["stage"]["name"], "choice": dict(chosen)}


def choices() -> dict[str, str]:
    """Return the option of each group that the command has chosen; none without a command."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {}
    found = HydraConfig.get().runtime.choices.items()
    plain = {str(k).partition("@")[0]: v for k, v in found if not str(k).startswith("hydra/")}
    return {key: str(value) for key, value in plain.items() if value is not None}


@contextmanager
def logged(loggers: dict[str, Any], parameters: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Tell the loggers of a run its parameters, and at the end whether it finished.

    Within the block they warn instead of fail; those that cannot begin are left out. A run that is
    stopped by a signal is not finished, and continues under the same name; see ``conclude`` of each
    logger.

    Args:
        loggers: by name; ``None`` where one is left out. Those that fail become ``None``.
        parameters: plain values by name.

    Raises:
        UserError: a logger is set up in a way that cannot work.
    """
    from vclr_lightning.app.explain import explain
    from vclr_lightning.loggers.unfailing import keep_going

    running: dict[str, Any] = {}
    for name, sink in [*loggers.items()]:
        if sink is None:
            continue
        try:
            sink.log_hyperparams(parameters)
        except UserError:
            raise
        except Exception as error:  # whatever a service raises
            what = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("logger.%s cannot begin and is left out (%s)", name, what)
            loggers[name] = None
            continue
        keep_going(sink, name)
        running[name] = sink
    try:
        yield [*running.values()]
    except BaseException as error:
        if signum := _signal_of(error):
            _conclude(running, "stopped", signum=signum)
        else:
            reason = explain(error) or f"{type(error).__name__}: {error}"
            _conclude(running, "failed", reason=" ".join(reason.split()))
        raise
    _conclude(running, "finished")


def _signal_of(error: BaseException) -> int:
    """The signal that stopped the run; 0 where none did."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    code = error.code if isinstance(error, SystemExit) else None
    return code - _SIGNALLED if isinstance(code, int) and code > _SIGNALLED else 0


def _conclude(running: Mapping[str, Any], state: str, **how: Any) -> None:
    for sink in running.values():
        if callable(own := getattr(sink, "conclude", None)):
            own(state, **how)
