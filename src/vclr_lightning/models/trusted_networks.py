"""Networks that a file may name and have built: this package's, and those of the user."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.constructor_calls import import_path
from vclr_lightning.models.network_spec import (
    BACKBONES,
    NODE,
    describe_spec,
    set_pixel_statistics,
    spec_arguments,
    upgrade_spec,
)

_WRAPPER = "vclr_lightning.models.WrappedBackbone"
_NODES: dict[str, Sequence[Mapping[str, Any]]] = {}  # by import path, as the user wrote them
_CLASSES: dict[str, type[nn.Module]] = {}


def register_backbone(network: type[nn.Module]) -> type[nn.Module]:
    """Let weights files that record this class be loaded without building the network first.

    A class in a file is code, so nothing that a file names is imported by itself. Commands need no
    call: they take the classes that a YAML file in ``conf/backbone`` of your project names.

    Args:
        network: your class; used as a decorator, too.

    Returns:
        The class.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.models import Backbone, export_backbone, load_backbone
        >>> @register_backbone
        ... class Small(Backbone):
        ...     def __init__(self, *, width: int) -> None:
        ...         super().__init__()
        ...         self.num_features, self.clip_dims = width, 2
        ...         self.conv = nn.Conv2d(3, width, 3)
        >>> file = export_backbone(Small(width=5), tempfile.mkdtemp() + "/small.safetensors")
        >>> load_backbone(file).num_features
        5
    """
    _CLASSES[import_path(network)] = network
    return network


@contextmanager
def vouched(nodes: Iterable[Any]) -> Iterator[None]:
    """Let files name, while the block runs, what the user's own configuration names.

    Args:
        nodes: of the configuration, as plain values, with a ``_target_`` anywhere in them.
    """
    before = dict(_NODES)
    for one in (one for node in nodes for one in _targets(node)):
        path = str(one["_target_"])
        _NODES[path] = [*_NODES.get(path, ()), one]
    try:
        yield
    finally:
        _NODES.clear()
        _NODES.update(before)


def trusted_spec(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the spec from a file if its network may be built, otherwise ``None``.

    Allowed are this package's classes with plain arguments. A class of the user, where he vouches
    for it (:func:`register_backbone`, :func:`vouched`), may have any recorded arguments; a
    function, or a class that is no ``nn.Module``, only those that his configuration gives it.
    Nothing else is imported, and nothing is resolved.

    Raises:
        UserError: a class that the user vouches for cannot be imported.

    Example:
        >>> trusted_spec({"_target_": "os.system", "command": "true"})
        >>> tiny = {"_target_": "vclr_lightning.models.TinyBackbone"}
        >>> trusted_spec({**tiny, "_args_": [{"_target_": "os.system"}]}) == tiny
        True
        >>> trusted_spec({**tiny, "width": "${a}"})
        >>> with vouched([{"_target_": "torch.nn.Flatten"}]):
        ...     trusted_spec({"_target_": "torch.nn.Flatten", "start_dim": 2})["start_dim"]
        2
    """
    kept = {k: v for k, v in spec.items() if k in ("_target_", "_pixels_") or k[:1] != "_"}
    values = {key: value for key, value in kept.items() if key != "_pixels_"}
    if values.get("_target_") not in BACKBONES:
        return (
            dict(kept)
            if "_target_" in kept and not lacks_arguments(spec) and _known(values)
            else None
        )
    plain = all(v is None or isinstance(v, bool | int | float | str) for v in values.values())
    return dict(upgrade_spec(kept)) if plain and _known(values) else None


def lacks_arguments(spec: Any) -> bool:
    """Whether arguments of a network, or of one in it, are not recorded."""
    return any("_arguments_" in one for one in _targets(spec))


def _known(value: Any) -> bool:
    """Whether building a value from a file runs nothing but what the user vouches for."""
    if isinstance(value, list):
        return all(map(_known, value))
    if not isinstance(value, Mapping):
        return value is None or isinstance(value, bool | int | float) or "${" not in str(value)
    target = value.get("_target_")
    if any(key[:1] == "_" and key not in ("_target_", "_partial_") for key in value):
        return False
    if target is None or target in BACKBONES or target == _WRAPPER:
        return all(map(_known, value.values()))
    if target not in _NODES and target not in _CLASSES:
        return False
    found = _resolve(str(target))
    if isinstance(found, type) and issubclass(found, nn.Module):
        return all(_known(item) for key, item in value.items() if key != "_target_")
    return value in _NODES.get(str(target), ())


def build_backbone(spec: Mapping[str, Any]) -> nn.Module:
    """Build a network from a spec that :func:`trusted_spec` accepts.

    Raises:
        UserError: a value is out of range, or larger than in any network; or the spec does not
            give a network.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> build_backbone(TinyBackbone(width=8).spec).num_features
        64
    """
    if spec["_target_"] in BACKBONES:
        return set_pixel_statistics(BACKBONES[spec["_target_"]](**spec_arguments(spec)), spec)
    node = {key: value for key, value in spec.items() if key != "_pixels_"}
    try:
        network = _build(node)
    except UserError:
        raise
    except Exception as error:  # of the user's own class
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{describe_spec(spec)} cannot be built: {what}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{describe_spec(spec)} gives a {type(network).__name__}, no nn.Module")
    vars(network)[NODE] = node
    return set_pixel_statistics(network, spec)


def _build(value: Any) -> Any:
    if isinstance(value, list):
        return [_build(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    arguments = {key: _build(item) for key, item in value.items() if key[:1] != "_"}
    if "_target_" not in value:
        return arguments
    target = str(value["_target_"])
    call = _resolve(target)
    return partial(call, **arguments) if value.get("_partial_") else call(**arguments)


def _resolve(target: str) -> Any:
    if target in BACKBONES or target in _CLASSES:
        return {**BACKBONES, **_CLASSES}[target]
    try:
        return pkgutil.resolve_name(target)
    except Exception as error:  # whatever the user's module raises
        raise UserError(
            f"{target} cannot be imported ({type(error).__name__}: {error}); give the folder of its"
            " module in PYTHONPATH"
        ) from error


def _targets(node: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a node that names a class or function."""
    if isinstance(node, Mapping) and "_target_" in node:
        yield node
    children = (
        node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    )
    for child in children:
        yield from _targets(child)
