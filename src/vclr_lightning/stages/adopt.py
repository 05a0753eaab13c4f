"""What a finished network was trained with, as far as its evaluation needs to know."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.callbacks.checkpoint_io import load_plain
from vclr_lightning.core.errors import UserError
from vclr_lightning.models.timm import own_size

logger = logging.getLogger(__name__)

OTHERWISE = {"image_size": 224, "frames_per_clip": 1, "frame_stride": 1}
"""Values taken where neither the user nor the checkpoint's run says anything: the paper's.

Of a network of timm, its own size."""


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
    values = {key: saved.get(key, otherwise[key]) for key in missing}
    if told := ", ".join(f"{key}={values[key]}" for key in missing if key in saved):
        logger.info("as in pretraining: %s", told)
    return values


def _own_size(backbone: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the size of pictures that a network of timm was described for."""
    is_timm = backbone is not None and str(backbone.get("_target_")).endswith(".TimmBackbone")
    return {"image_size": own_size(str(backbone["name"]))} if backbone and is_timm else {}


def run_config(ckpt: Path) -> dict[str, Any]:
    """Return the configuration of the run that left ``ckpt``; empty where it is not known.

    A checkpoint holds it; beside an exported backbone stands ``config.yaml``.
    """
    if ckpt.suffix == ".safetensors":
        from omegaconf import OmegaConf

        beside = ckpt.with_name("config.yaml")
        content = OmegaConf.to_container(OmegaConf.load(beside)) if beside.is_file() else {}
        return dict(content) if isinstance(content, dict) else {}  # type: ignore[arg-type]
    try:
        metadata = load_plain(ckpt, mapped=True).get("metadata")
    except UserError:  # another program's; whether it can be read is found out where it is loaded
        return {}
    config = metadata.get("config") if isinstance(metadata, Mapping) else None
    return dict(config) if isinstance(config, Mapping) else {}
