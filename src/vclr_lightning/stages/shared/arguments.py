"""Compare a configuration with the signatures of what it builds, before anything is built."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from hydra.utils import get_object
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vclr_lightning.core.errors import UserError
from vclr_lightning.modules.metric_averaging import check_precision

_HYDRA = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
# By annotation. Most classes of Lightning and torch have annotations that no validator can resolve.
_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "float": ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("text", lambda v: isinstance(v, str)),
}
# Values that torch does not check.
_RANGES: dict[type, dict[str, tuple[str, Callable[[Any], bool]]]] = {
    Optimizer: {"momentum": ("at least 0 and below 1", lambda v: 0 <= v < 1)},
    LRScheduler: {"gamma": ("above 0", lambda v: v > 0)},
}
# Parts of a method, which are keys of ``objective``.
_PARTS = {"samplers", "transforms", "share", "encoders", "objectives", "weights"}


def check_arguments(config: Mapping[str, Any]) -> None:
    """Refuse arguments that a ``_target_`` does not have, and values that it cannot take.

    Optimizers and schedules, which are built late, are built once on trial.

    Args:
        config: resolved, as plain values.

    Raises:
        UserError: an argument is unknown, of the wrong type or out of range, there is no such
            target, the module does not train in the trainer's precision, or a part of the method
            stands where nothing reads it.

    Example:
        >>> check_arguments({"optim": {"_target_": "torch.optim.SGD", "lr": 1, "nesterofs": True}})
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: optim has no nesterofs; did you mean nesterov?
    """
    if "objective" in config and (astray := sorted(_PARTS & config.keys())):
        part = astray[0]
        raise UserError(
            f"{part} stands beside objective, where nothing reads it; in a file with `# @package "
            f"_global_` write objective: {{{part}: ...}}, and in its defaults "
            f"/objective/part/...@objective.{part}.NAME"
        )
    for key, node in _nodes(config):
        if not isinstance(node, Mapping) or "_target_" not in node:
            continue
        try:
            target = get_object(node["_target_"])
        except Exception as error:
            raise UserError(
                f"{key}._target_={node['_target_']} cannot be imported: {error.__cause__ or error}"
            ) from error
        parameters = _parameters(target)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        given = {name: value for name, value in node.items() if name not in _HYDRA}
        for name, value in given.items():
            if name in parameters:
                _check_type(f"{key}.{name}", value, parameters[name].annotation)
            elif not takes_any:
                near = difflib.get_close_matches(str(name), parameters, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(parameters)}"
                raise UserError(f"{key} has no {name}; {hint}")
        if key.startswith("objective.") and not node.get("_partial_"):
            needed = [p.name for p in parameters.values() if _is_needed(p)]
            if lacking := [name for name in needed if name not in given and "_args_" not in node]:
                raise UserError(
                    f"{key} lacks {', '.join(lacking)}; give it, or, where the program does, set "
                    f"{key}._partial_=true"
                )
        if key == "module":
            check_precision(target, (config.get("trainer") or {}).get("precision"))
        _build_on_trial(key, target, given, config)


def admits_infinity(node: Any, name: str) -> bool:
    """Whether an argument of the target of ``node`` may be infinite, because its default is."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if target is None:
        return False
    parameter = inspect.signature(get_object(target)).parameters.get(name)
    default = None if parameter is None else parameter.default
    return isinstance(default, float) and not math.isfinite(default)


def with_key(sentence: str, config: Mapping[str, Any]) -> str:
    """Return a message about a value with the value's key instead of the argument's name.

    Example:
        >>> with_key("temperature=-1 must be positive", {"objective": {"temperature": -1}})
        'objective.temperature=-1 must be positive'
    """
    found = re.match(r"(\w+)=(.+?) (?:must|is|of)\b", sentence)
    if found is None:
        return sentence
    keys = [
        key
        for key, value in _nodes(config)
        if key.rpartition(".")[2] == found[1]
        and not isinstance(value, Mapping)
        and str(value) == found[2]
    ]
    return min(keys, key=lambda key: key.count("."), default=found[1]) + sentence[len(found[1]) :]


def _nodes(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All nodes by dotted key, parents first; ``objective``, which others repeat, before them.

    ``stage``, whose ``run`` repeats others, is last.
    """
    yield prefix, node
    if isinstance(node, Mapping):
        children = [(str(key), child) for key, child in node.items()]
        if not prefix:
            children.sort(key=lambda child: (child[0] == "stage", child[0] != "objective"))
    elif isinstance(node, list):
        children = [(str(index), child) for index, child in enumerate(node)]
    else:
        return
    for key, child in children:
        yield from _nodes(child, f"{prefix}.{key}" if prefix else key)


def _parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Of a callable, and of ``Class`` for its ``**rest: Annotated[Any, Class]``."""
    own = dict(inspect.signature(target).parameters)
    for name, parameter in list(own.items()):
        taker = re.fullmatch(r"Annotated\[Any, (\w+)\]", str(parameter.annotation))
        if taker is not None:
            del own[name]
            own = _parameters(vars(inspect.getmodule(target))[taker[1]]) | own
    return own


def _is_needed(parameter: inspect.Parameter) -> bool:
    rest = (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return parameter.default is parameter.empty and parameter.kind not in rest


def _check_type(key: str, value: Any, annotation: Any) -> None:
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if value is None and name.endswith(" | None"):
        return
    wanted, fits = _PLAIN.get(name.removesuffix(" | None"), ("", lambda _: True))
    if not fits(value):
        raise UserError(f"{key}={value!r} must be {wanted}")


def _build_on_trial(
    key: str, target: Any, given: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Build an optimizer or a schedule; raises ``UserError`` for values out of range."""
    kind = next((k for k in _RANGES if isinstance(target, type) and issubclass(target, k)), None)
    if kind is None or any(isinstance(value, Mapping | str) for value in given.values()):
        return
    for name, (wanted, fits) in _RANGES[kind].items():
        if isinstance(given.get(name), int | float) and not fits(given[name]):
            raise UserError(f"{key}.{name}={given[name]} must be {wanted}")
    weights = [torch.zeros(1, requires_grad=True)]
    length = {"steps_per_epoch": 1, "epochs": max(1, int(config.get("epochs") or 1))}
    if not {*length} <= inspect.signature(target).parameters.keys():
        length = {}
    try:
        target(weights if kind is Optimizer else SGD(weights, lr=1.0), **length, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key} cannot be set up: {error}") from error
