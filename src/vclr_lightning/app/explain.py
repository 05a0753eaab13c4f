"""Errors in one sentence, whichever library raised them."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator

from yaml import MarkedYAMLError

from vclr_lightning.core.errors import CodeFault, UserError, causes, disk_failure, escape_controls

_PLUS = ("experiment", "preset", "profiler", "suite")


def report_error(error: BaseException) -> int | None:
    """Print one sentence for a user's mistake, or the report of a fault of code.

    Returns:
        The exit status, 2 or 1; ``None`` for other errors, which are not printed.
    """
    status, text = 2, explain(error)
    if text is None and isinstance(error, CodeFault):
        status, text = 1, error.report()
    if text is None:
        return None
    print(f"error: {escape_controls(text)}", file=sys.stderr)
    return status


def explain(error: BaseException) -> str | None:
    """Return one sentence for a user's mistake; ``None`` for any other error.

    Example:
        >>> explain(UserError("data.root=/x does not exist"))
        'data.root=/x does not exist'
        >>> explain(RuntimeError("a fault of the program")) is None
        True
    """
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return _one_line(str(cause))
    if trouble := disk_failure(error, full=True):
        return f"cannot write: {trouble}; make room, and give the same command again"
    for cause in chain:
        module, name = type(cause).__module__, type(cause).__name__
        if name == "InstantiationException":
            return _instantiation(cause)
        if name == "OutOfMemoryError":
            return (
                "the device's memory is full; give a smaller batch_size, or the same with"
                " trainer.accumulate_grad_batches, objective.encoders.key.chunk or"
                " trainer.precision=16-mixed"
            )
        if name in ("BackendCompilerFailed", "InductorError"):
            said = _one_line(str(cause)).partition(" Set TORCHDYNAMO_VERBOSE")[0]
            return f"torch.compile failed, {said:.300}; mend that, or give module.compile=false"
        ranks = sys.modules.get("vclr_lightning.stages.shared.ddp")
        if ranks is not None and (lost := ranks.lost_rank(cause)):
            return str(lost)
        if str(cause).startswith("Invalid defaults list"):
            return _one_line(str(cause))
        if str(cause).startswith("Config group override must be"):
            return "a group cannot be null on the command line; name one of its options (--help)"
        if isinstance(cause, OSError) and cause.filename is not None and cause.strerror:
            return f"{cause.filename} cannot be used: {cause.strerror}; give another path"
        if isinstance(cause, MarkedYAMLError):
            mark = cause.problem_mark
            where = "" if mark is None else f" (line {mark.line + 1} of {mark.name})"
            return f"a file of options is no YAML: {cause.problem}{where}"
        if module.startswith("hydra.") or name in ("HydraException",):
            return _hydra(cause)
        if module.startswith("omegaconf."):
            return _one_line(str(cause).split("\n")[0])
    return None


def _instantiation(error: BaseException) -> str | None:
    """A call in the configuration whose arguments are invalid."""
    found = re.search(r"Error in call to target '([^']+)'", str(error))
    where = re.search(r"full_key: (\S+)", str(error))
    if found is None or not isinstance(error.__cause__, TypeError | ValueError):
        return None
    key = where[1].removeprefix("stage.run.") if where else "the configuration"
    message = _one_line(str(error.__cause__))
    return f"the values of {key} do not fit {found[1]}: {message} (HYDRA_FULL_ERROR=1 shows where)"


def _hydra(error: BaseException) -> str:
    """Hydra's errors about the command line, of many lines."""
    text = str(error)
    option = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if option:
        listed = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)*)", text)
        names = ", ".join(sorted(listed[1].split())) if listed else ""
        group, name = option.groups()
        hint = f"there are {names}" if names else "see --help"
        return f"there is no {group}={name}; {hint}"
    override = getattr(error, "override", None)
    if isinstance(override, str):
        return f"{override} cannot be read as KEY=VALUE; quote what is special, as 'KEY=\"VALUE\"'"
    key = re.search(r"Could not (?:override|append to) '([^']+)'", text)
    if key:
        inner = re.search(r"full_key: (\S+)", str(error.__cause__))
        return _unknown_key(str(key[1]), inner[1] if inner else str(key[1]))
    return _one_line(text)


def _unknown_key(name: str, inner: str) -> str:
    if name in _PLUS:
        return f"{name} is added to a run, not replaced: give +{name}=..."
    if inner.startswith(f"{name}."):  # a mapping was given for an existing one
        return (
            f"there is no {inner} in the configuration, and a mapping only changes existing keys; "
            f"to replace {name}, give '~{name}' '+{name}={{...}}'"
        )
    near = difflib.get_close_matches(name, _known_keys(), n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "--help and --cfg job show what there is"
    return f"there is no {name} in the configuration; {hint}"


def _known_keys() -> list[str]:
    """Every key of the default configuration."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    def keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
        for key in node:
            name, child = prefix + str(key), node._get_node(str(key))
            yield name
            if isinstance(child, DictConfig) and isinstance(child._value(), dict):
                yield from keys(child, name + ".")

    GlobalHydra.instance().clear()
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return list(keys(compose("config")))


def _one_line(text: str) -> str:
    return " ".join(text.split())
