"""The configuration of an earlier run: inherited, and compared."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.network_spec import upgrade_spec
from vclr_lightning.models.run_record import config_value, run_config
from vclr_lightning.models.timm import timm_image_size

logger = logging.getLogger(__name__)

DEFAULTS = {"image_size": 224, "frames_per_clip": 1, "frame_stride": 1}
"""The paper's values, where neither the user nor the checkpoint's run gives any.

Networks of timm have an image size of their own."""

# What may differ between a checkpoint and the run that continues it: locations, loading speed,
# output. The videos themselves are compared by their fingerprint.
FREE = (
    *("name", "run_dir", "resume", "ckpt", "init", "monitor", "logger", "callbacks", "stage.run"),
    "suite",  # runs after training
    *("untrimmed", "test"),
    "module.init_std",  # of the initial weights only
    "annotations",  # of localisation: features and spans are compared by their hash
    "snippets.folder",
    *("data.root", "data.manifest", "data.train_list", "data.val_list", "data.kinetics"),
    *("data.cache_dir", "data.decode", "data.group_regex", "data.frames", "data.reader"),
    *("data.num_workers", "data.start_method", "data.prefetch_factor", "data.timeout"),
    *("data.pin_memory", "data.max_rejected_share", "data.eval_batch_size"),
    *("trainer.log_every_n_steps", "trainer.profiler", "trainer.num_nodes", "trainer.devices"),
    "trainer.timeout",
)
_MOST = 10_000  # pixels, frames


def config_count(config: Mapping[str, Any], key: str, default: int, ckpt: str | Path | None) -> int:
    """Return a positive whole number of a run's configuration, or the default.

    Raises:
        UserError: it is no such number.
    """
    value = config.get(key, default)
    if type(value) is not int or not 0 < value <= _MOST:
        raise UserError(f"{ckpt} says it was made with {key}={str(value)[:99]}; give {key}=NUMBER")
    return value


def inherited_settings(config: Mapping[str, Any], ckpt: str | Path | None) -> dict[str, Any]:
    """Return the keys of :data:`DEFAULTS` that are ``None`` in ``config``, as in ``ckpt``'s run.

    Likewise ``frame_rate``, if the run had one and neither it nor ``frame_stride`` is given.

    Example:
        >>> config = {"image_size": None, "frames_per_clip": 8, "frame_stride": None}
        >>> inherited_settings(config, "none")
        {'image_size': 224, 'frame_stride': 1}
    """
    missing = [key for key in DEFAULTS if config[key] is None]
    saved = {} if ckpt is None or str(ckpt).lower() == "none" else run_config(Path(ckpt))
    defaults, backbone = dict(DEFAULTS), config.get("backbone")
    if backbone is not None and str(backbone.get("_target_")).endswith(".TimmBackbone"):
        defaults["image_size"] = timm_image_size(str(backbone["name"]))
    values: dict[str, Any] = {}
    for key in missing:
        values[key] = config_count(saved, key, defaults[key], ckpt)
    rate = saved.get("frame_rate")
    if rate is not None and "frame_stride" in missing and config.get("frame_rate") is None:
        if type(rate) not in (int, float) or not 0 < rate <= _MOST:
            raise UserError(
                f"{ckpt} says it was made with frame_rate={str(rate)[:99]}; give frame_rate=NUMBER"
            )
        values["frame_rate"] = rate
        missing.append("frame_rate")
    if inherited := ", ".join(f"{key}={values[key]}" for key in missing if key in saved):
        logger.info("as in the run of the weights: %s", inherited)
    return values


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], given: Collection[str] | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """Yield ``(key, saved value, present value)`` of every difference outside :data:`FREE`.

    A key that is missing in the checkpoint was added by a later version, if the command (``given``)
    leaves it at its packaged value and it is one more argument of something in the checkpoint; that
    is no difference. Without ``given`` it is one.

    Example:
        >>> list(differences({"epochs": 4, "name": "a"}, {"epochs": 5, "name": "b"}))
        [('epochs', 4, 5)]
    """
    before, after = dict(_leaves(saved)), dict(_leaves(now))
    for key in sorted(before.keys() | after.keys()):
        if any(is_below(key, free) for free in FREE):
            continue
        if given is not None and key not in before and _added_later(key, saved, now, given):
            continue
        was, new = before.get(key), after.get(key)
        if was != new:
            yield key, was, new


def _added_later(
    key: str, saved: Mapping[str, Any], now: Mapping[str, Any], given: Collection[str]
) -> bool:
    if any(is_below(key, g) or is_below(g, key) for g in given):
        return False
    parent = key.rpartition(".")[0]
    was, new = (config_value(node, parent) if parent else node for node in (saved, now))
    if not (isinstance(was, Mapping) and isinstance(new, Mapping)):
        return False
    if was.get("_target_") != new.get("_target_"):
        return False
    # Below the objective, keys without a class are names of losses, not arguments.
    return not is_below(parent, "objective") or "_target_" in was


def is_below(key: str, other: str) -> bool:
    """Whether a dotted key is another one, or below it."""
    return key == other or key.startswith(f"{other}.")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values by dotted key; of a list, one by one where any is a mapping."""
    children: Iterable[tuple[Any, Any]]
    if isinstance(node, Mapping) and node:
        children = upgrade_spec(node).items()
    elif isinstance(node, list) and any(isinstance(value, Mapping) for value in node):
        children = enumerate(node)
    else:
        yield prefix, node
        return
    for key, value in children:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
