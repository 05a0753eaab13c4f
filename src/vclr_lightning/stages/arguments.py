"""Compare a configuration with what it calls, before anything is built."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydra.utils import get_object

from vclr_lightning.core.errors import UserError
from vclr_lightning.modules.measuring import check_precision

_HYDRA = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "float": ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("text", lambda v: isinstance(v, str)),
}


def check_arguments(config: Mapping[str, Any]) -> None:
    """Refuse arguments that a ``_target_`` does not have, and plain values of another type.

    Args:
        config: resolved, as plain values.

    Raises:
        UserError: an argument is unknown or of the wrong type, there is no such target, or the
            module does not train in the trainer's precision.

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
        parameters = inspect.signature(target).parameters
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
