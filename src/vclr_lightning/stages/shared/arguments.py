"""Compare a configuration with what it calls, before anything is built."""

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
from vclr_lightning.modules.measuring import check_precision

_HYDRA = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "float": ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("text", lambda v: isinstance(v, str)),
}
# What torch takes as it comes.
_RANGES: dict[type, dict[str, tuple[str, Callable[[Any], bool]]]] = {
    Optimizer: {"momentum": ("at least 0 and below 1", lambda v: 0 <= v < 1)},
    LRScheduler: {"gamma": ("above 0", lambda v: v > 0)},
}


def check_arguments(config: Mapping[str, Any]) -> None:
    """Refuse arguments that a ``_target_`` does not have, and values that it cannot take.

    Optimizers and schedules, which are built late, are tried.

    Args:
        config: resolved, as plain values.

    Raises:
        UserError: an argument is unknown, of the wrong type or out of its range, there is no such
            target, or the module does not train in the trainer's precision.

    Example:
        >>> check_arguments({"optim": {"_target_": "torch.optim.SGD", "lr": 1, "nesterofs": True}})
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: optim has no nesterofs; did you mean nesterov?
    """
    for key, node in _targets(config):
        try:
            target = get_object(node["_target_"])
        except Exception as error:
            raise UserError(
                f"{key}._target_={node['_target_']} cannot be imported: {error.__cause__ or error}"
            ) from error
        parameters = _parameters(target)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name, value in node.items():
            if name in _HYDRA or (takes_any and name not in parameters):
                continue
            if name not in parameters:
                near = difflib.get_close_matches(str(name), parameters, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(parameters)}"
                raise UserError(f"{key} has no {name}; {hint}")
            _check_type(f"{key}.{name}", value, parameters[name].annotation)
        if key == "module":
            check_precision(target, (config.get("trainer") or {}).get("precision"))
        _try_out(key, target, {k: v for k, v in node.items() if k not in _HYDRA}, config)


def _parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Of a callable, and of what it hands the others to: of ``**rest: Annotated[Any, Class]``."""
    own = dict(inspect.signature(target).parameters)
    for name, parameter in list(own.items()):
        taker = re.fullmatch(r"Annotated\[Any, (\w+)\]", str(parameter.annotation))
        if taker is not None:
            del own[name]
            own = _parameters(vars(inspect.getmodule(target))[taker[1]]) | own
    return own


def admits_infinity(node: Any, name: str) -> bool:
    """Whether an argument of what ``node`` calls may be infinite: its default is."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if target is None:
        return False
    parameter = inspect.signature(get_object(target)).parameters.get(name)
    default = None if parameter is None else parameter.default
    return isinstance(default, float) and not math.isfinite(default)


def with_key(sentence: str, config: Mapping[str, Any]) -> str:
    """Return a sentence about a value, by the value's key where it only says an argument's name.

    Example:
        >>> with_key("temperature=-1 must be positive", {"objective": {"temperature": -1}})
        'objective.temperature=-1 must be positive'
    """
    found = re.match(r"(\w+)=(.+?) (?:must|is|of)\b", sentence)
    if found is None:
        return sentence
    keys = [
        key
        for key, value in _values(config)
        if key.rpartition(".")[2] == found[1] and str(value) == found[2]
    ]
    return min(keys, key=lambda key: key.count("."), default=found[1]) + sentence[len(found[1]) :]


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values, and lists beside what is in them, by the key that the user gives."""
    if isinstance(node, Mapping):
        children = [(str(key), child) for key, child in node.items()]
        if not prefix:
            children.sort(key=lambda child: child[0] == "stage")
    else:
        yield prefix, node
        children = [(str(i), child) for i, child in enumerate(node)] if type(node) is list else []
    for key, child in children:
        yield from _values(child, f"{prefix}.{key}" if prefix else key)


def _try_out(key: str, target: Any, given: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Build an optimizer, or a schedule, for nothing.

    Raises:
        UserError: a value is out of its range.
    """
    kind = next((k for k in _RANGES if isinstance(target, type) and issubclass(target, k)), None)
    if kind is None or any(isinstance(value, Mapping | str) for value in given.values()):
        return
    for name, (wanted, fits) in _RANGES[kind].items():
        if isinstance(given.get(name), int | float) and not fits(given[name]):
            raise UserError(f"{key}.{name}={given[name]} must be {wanted}")
    one = [torch.zeros(1, requires_grad=True)]
    length = {"steps_per_epoch": 1, "epochs": max(1, int(config.get("epochs", 1)))}
    if not {*length} <= inspect.signature(target).parameters.keys():
        length = {}
    try:
        target(one if kind is Optimizer else SGD(one, lr=1.0), **length, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key} cannot be set up: {error}") from error


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is called, under the names that the user gives; ``stage.run`` repeats them."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield prefix, node
        children = [(str(key), child) for key, child in node.items()]
        if not prefix:
            children.sort(key=lambda child: child[0] == "stage")
    elif isinstance(node, list):
        children = [(str(index), child) for index, child in enumerate(node)]
    else:
        return
    for key, child in children:
        yield from _targets(child, f"{prefix}.{key}" if prefix else key)


def _check_type(key: str, value: Any, annotation: Any) -> None:
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if value is None and name.endswith(" | None"):
        return
    wanted, fits = _PLAIN.get(name.removesuffix(" | None"), ("", lambda _: True))
    if not fits(value):
        raise UserError(f"{key}={value!r} must be {wanted}")
