"""What a run left beside its weights: its configuration and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import plain_values, read_yaml
from vclr_lightning.core.saved import load_dict


def run_config(ckpt: Path) -> dict[str, Any]:
    """Return the configuration of the run that wrote ``ckpt``; empty where it is not known.

    It is in a checkpoint, and in ``config.yaml`` beside an exported backbone. Only plain values are
    read, and nothing in them is resolved.

    Raises:
        UserError: it is damaged, or no configuration.
    """
    if ckpt.suffix == ".safetensors":
        beside = ckpt.with_name("config.yaml")
        return read_yaml(beside) if beside.is_file() else {}
    try:
        content = load_dict(ckpt, mapped=True)
    except UserError:  # another program's; loading its weights reports whether it can be read
        return {}
    return checkpoint_config(content, ckpt)


def checkpoint_config(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the configuration in a loaded checkpoint; see :func:`run_config`."""
    metadata = checkpoint.get("metadata")
    config = metadata.get("config") if isinstance(metadata, Mapping) else None
    return plain_values(config, path) if isinstance(config, Mapping) else {}


def config_value(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; ``None`` where there is none.

    Example:
        >>> config_value({"module": {"head": "tsn"}}, "module.head"), config_value({"a": 1}, "a.b")
        ('tsn', None)
    """
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
