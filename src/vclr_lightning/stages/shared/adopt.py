"""What a finished network was trained with, as far as its evaluation needs to know."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import plain_values, read_yaml
from vclr_lightning.core.saved import load_dict
from vclr_lightning.models.timm import timm_image_size

logger = logging.getLogger(__name__)

OTHERWISE = {"image_size": 224, "frames_per_clip": 1, "frame_stride": 1}
"""Values taken where neither the user nor the checkpoint's run says anything: the paper's.

Of a network of timm, its own size."""

_MOST = 10_000  # pixels, frames


def adopted(config: Mapping[str, Any], ckpt: str | Path | None) -> dict[str, Any]:
    """Return the values that are left open in ``config``, as in the run that ``ckpt`` is of.

    Args:
        config: holds the keys of :data:`OTHERWISE`; ``None`` is open.
        ckpt: a checkpoint or an export; a file of another program says nothing.

    Example:
        >>> adopted({"image_size": None, "frames_per_clip": 8, "frame_stride": None}, "none")
        {'image_size': 224, 'frame_stride': 1}
    """
    missing = [key for key in OTHERWISE if config[key] is None]
    saved = {} if ckpt is None or str(ckpt).lower() == "none" else run_config(Path(ckpt))
    otherwise = {**OTHERWISE, **_own_size(config.get("backbone"))}
    values = {key: saved_count(saved, key, otherwise[key], ckpt) for key in missing}
    if told := ", ".join(f"{key}={values[key]}" for key in missing if key in saved):
        logger.info("as in pretraining: %s", told)
    return values


def _own_size(backbone: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the size of pictures that a network of timm was described for."""
    is_timm = backbone is not None and str(backbone.get("_target_")).endswith(".TimmBackbone")
    return {"image_size": timm_image_size(str(backbone["name"]))} if backbone and is_timm else {}


def run_config(ckpt: Path) -> dict[str, Any]:
    """Return the configuration of the run that left ``ckpt``; empty where it is not known.

    A checkpoint holds it; beside an exported backbone stands ``config.yaml``. Only plain values are
    taken, and nothing in them is resolved.

    Raises:
        UserError: it is damaged, or no configuration.
    """
    if ckpt.suffix == ".safetensors":
        beside = ckpt.with_name("config.yaml")
        return read_yaml(beside) if beside.is_file() else {}
    try:
        content = load_dict(ckpt, mapped=True)
    except UserError:  # another program's; whether it can be read is found out where it is loaded
        return {}
    return config_of(content, ckpt)


def config_of(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the configuration in a checkpoint that was loaded, as :func:`run_config` does."""
    metadata = checkpoint.get("metadata")
    config = metadata.get("config") if isinstance(metadata, Mapping) else None
    return plain_values(config, path) if isinstance(config, Mapping) else {}


def saved_value(config: Mapping[str, Any], key: str) -> Any:
    """Return what a run's configuration has under a dotted key; ``None`` where it has nothing.

    Example:
        >>> saved_value({"module": {"head": "tsn"}}, "module.head"), saved_value({"a": 1}, "a.b")
        ('tsn', None)
    """
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def saved_count(
    config: Mapping[str, Any], key: str, otherwise: int, ckpt: str | Path | None
) -> int:
    """Return a whole number of a run's configuration, or another where it has none.

    Raises:
        UserError: it is no number that can be.
    """
    value = config.get(key, otherwise)
    if type(value) is not int or not 0 < value <= _MOST:
        raise UserError(f"{ckpt} says it was made with {key}={str(value)[:99]}; give {key}=NUMBER")
    return value
