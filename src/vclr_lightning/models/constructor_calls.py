"""How a network was called: its class and arguments, as plain values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

_UNKNOWN = {"_arguments_": "unknown"}


def import_path(network: nn.Module | type) -> str:
    """Return the import path of a network's class.

    Example:
        >>> from vclr_lightning.models import WrappedBackbone
        >>> import_path(nn.Linear(2, 2)), import_path(WrappedBackbone)
        ('torch.nn.modules.linear.Linear', 'vclr_lightning.models.WrappedBackbone')
    """
    kind = network if isinstance(network, type) else type(network)
    package = "vclr_lightning.models"
    own = kind.__module__.startswith(f"{package}.")
    return f"{package if own else kind.__module__}.{kind.__qualname__}"


def recorded_call(network: nn.Module) -> dict[str, Any]:
    """Return class and arguments of a network, with ``_arguments_`` where these are not known.

    Known are those of a :class:`Backbone`, of a network with a mapping ``spec`` of its own, and of
    a class whose constructor takes none.

    Example:
        >>> recorded_call(nn.Linear(2, 2))
        {'_target_': 'torch.nn.modules.linear.Linear', '_arguments_': 'unknown'}
    """
    stated = getattr(network, "spec", None)
    if not isinstance(stated, Mapping):
        init = type(network).__init__
        takes = len(inspect.signature(init).parameters) > 1 and init is not nn.Module.__init__
        stated = _UNKNOWN if takes else {}
    return {"_target_": import_path(network)} | {
        key: value for key, value in _plain_items(stated).items() if key != "_target_"
    }


def plain_arguments(
    init: Callable[..., None], self: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call of a constructor, as far as they are plain values."""
    signature = inspect.signature(init)
    try:
        call = signature.bind(self, *args, **kwargs)
    except TypeError:  # a copy, which gets the original's; or a call that the constructor refuses
        return dict(_UNKNOWN)
    call.apply_defaults()
    found: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        value = call.arguments[name]
        if parameter.kind is not parameter.VAR_POSITIONAL:
            found |= value if parameter.kind is parameter.VAR_KEYWORD else {name: value}
        elif value:
            found |= _UNKNOWN
    return _plain_items(found)


def _plain_items(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        try:
            found[name] = _plain(value)
        except TypeError:
            found |= _UNKNOWN
    return found


def _plain(value: Any) -> Any:
    """Return plain values as they are, and networks as their spec.

    Raises:
        TypeError: there is something else.
    """
    if isinstance(value, nn.Module):
        return recorded_call(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is no plain value")
