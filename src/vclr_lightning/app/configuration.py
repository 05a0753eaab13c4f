"""Complete and check the configuration of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from vclr_lightning.core.errors import UserError

_REQUIRED = "required"  # init, where an experiment leaves it to the user
_SUITE_KEYS = {"roots", "annotations", "manifests", "cache_dir"}  # keys of data=roots

# Whole numbers, and their least values.
_COUNTS = {
    "num_segments": 1,
    "frames_per_clip": 1,
    "frame_stride": 1,
    "image_size": 1,
    "batch_size": 1,
    "queue_size": 1,
    "epochs": 1,
    "steps": 1,
    "seed": 0,
}
_RATES = ("optim.base_lr", "switch.final_lr")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the checked and resolved configuration as plain values.

    Raises:
        UserError: a required value is missing, or a value is invalid.

    Example:
        >>> resolved(OmegaConf.create({"a": 1, "b": "${a}"}))
        {'a': 1, 'b': 1}
    """
    data = cfg.get("data") or {}
    if "roots" in data and ("evaluations" not in cfg.stage.run or not set(data) <= _SUITE_KEYS):
        raise UserError(
            "a suite has its own data sets (data.roots), and this run names another; leave out"
            " +suite=..., or the experiment, data=... or stage=... next to it"
        )
    _check_finite(cfg)
    for key, least in _COUNTS.items():  # others are computed from these
        value = _value(cfg, key, least)
        if key in ("epochs", "steps") and value is None:  # the trainer needs one of them
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key}={value!r} must be a whole number, {least} or more")
    for key in _RATES:
        rate = _value(cfg, key, 0)
        if not isinstance(rate, int | float) or rate < 0:
            raise UserError(f"{key}={rate!r} must be a number, 0 or more")
    rate = _value(cfg, "frame_rate", None)
    if rate is not None and (isinstance(rate, bool | str) or not rate > 0):
        raise UserError(f"frame_rate={rate!r} must be frames per second, above 0, or null")
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing[0]} is missing; give {missing[0]}=...")
        content = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationResolutionError as error:
        raise _not_computed(cfg, error) or error from error
    assert isinstance(content, dict)
    stage = content.get("stage", {}).get("run", {})
    if repr(_REQUIRED) in str(stage):  # where nothing begins with weights, none are missing
        raise UserError(
            "the weights to start from are missing; give init=PATH of them, such as"
            " moco_v2_200ep_pretrain.pth.tar, or init=none for random weights"
        )
    if int(content.get("seed", 0)) >= 2**32:
        raise UserError(f"seed={content['seed']} must be below {2**32}")
    return {str(key): value for key, value in content.items()}


def _value(cfg: DictConfig, key: str, default: Any) -> Any:
    """Return a value, or the default where it is missing or computed from invalid ones."""
    try:
        return OmegaConf.select(cfg, key, default=default)
    except InterpolationResolutionError:
        return default


def _not_computed(cfg: DictConfig, error: InterpolationResolutionError) -> UserError | None:
    """Return an error that names the values from which another cannot be computed."""
    if error.full_key is None:
        return None
    *parents, last = error.full_key.split(".")
    node = OmegaConf.select(cfg, ".".join(parents)) if parents else cfg
    if not isinstance(node, DictConfig) or not OmegaConf.is_interpolation(node, last):
        return None
    formula = str(OmegaConf.to_container(node, resolve=False)[last])  # type: ignore[call-overload,index]
    values = {key: _value(cfg, key, None) for key in re.findall(r"\$\{([\w.]+)\}", formula)}
    # Mostly a text where a number is needed.
    wrong = {key: v for key, v in values.items() if isinstance(v, str)} or values
    if not wrong:
        return None
    named = " and ".join(f"{key}={value!r}" for key, value in wrong.items())
    wanted = "it a value" if None in wrong.values() else "a number"
    return UserError(f"{error.full_key} cannot be computed from {named}; give {wanted}")


def derived_keys(cfg: DictConfig) -> set[str]:
    """Return the keys whose values are interpolations.

    Example:
        >>> sorted(derived_keys(OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": ["${a}"]}})))
        ['b.c', 'b.d.0']
    """
    return {name for name, node, key in _leaves(cfg) if OmegaConf.is_interpolation(node, key)}


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield all values: dotted key, the node that holds the value, and its key there."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        fixed = not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key)
        if fixed and OmegaConf.is_config(node[key]):
            yield from _leaves(node[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", node, key


def _check_finite(cfg: DictConfig) -> None:
    from vclr_lightning.stages.shared.arguments import admits_infinity

    for name, node, key in _leaves(cfg):
        value = node._get_node(key)._value()
        if isinstance(value, float) and not math.isfinite(value) and not admits_infinity(node, key):
            raise UserError(f"{name}={value} must be a finite number")


def with_debug(cfg: DictConfig) -> DictConfig:
    """Apply the values of ``debug`` after all others, to the keys that exist.

    Hydra merges an experiment after the groups, so it would win over a plain group.

    Example:
        >>> changes = {"epochs": 1, "a.b": None, "c": 2}
        >>> cfg = {"epochs": 400, "a": {"b": 1}, "debug": {"set": changes}}
        >>> with_debug(OmegaConf.create(cfg))
        {'epochs': 1, 'a': {'b': None}}
    """
    debug = cfg.get("debug")
    if debug is None:
        return cfg
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    del cfg["debug"]
    if "name" in debug and "name" in cfg:
        cfg.name = debug.name
    for key, value in debug.set.items():
        parent, _, last = str(key).rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if isinstance(node, DictConfig) and last in node:
            node[last] = value
    return cfg


def with_checkpoint_values(cfg: DictConfig, *, chosen: bool = True) -> DictConfig:
    """Complete the configuration of a stage that trains nothing from that of its checkpoint.

    Args:
        cfg: of the run.
        chosen: see :func:`with_network`.

    Raises:
        UserError: no weights are given.
    """
    if cfg.ckpt is None:
        raise UserError(
            f"stage={cfg.stage.name} needs weights; give ckpt=PATH of a checkpoint, or ckpt=none "
            "with backbone=NAME for an untrained network"
        )
    from vclr_lightning.stages.shared.run_config import inherited_settings

    cfg = cfg.copy()
    if str(cfg.ckpt).lower() != "none":
        cfg.ckpt = str(Path(str(cfg.ckpt)).expanduser())
    cfg = _network_from_weights(cfg, cfg.ckpt, chosen=chosen)
    for key, value in inherited_settings(cfg, cfg.ckpt).items():
        OmegaConf.update(cfg, key, value)
    return cfg


def with_network(
    cfg: DictConfig, checkpoint: Path | None = None, *, chosen: bool = True
) -> tuple[DictConfig, DictConfig]:
    """Choose the network that a stage trains or extracts features with: that of its weights.

    Args:
        cfg: of the run.
        checkpoint: that the run continues from; by default ``init`` is used.
        chosen: whether the command names ``backbone``. Where the network is only evaluated, its
            weights take precedence over an experiment that names it.

    Returns:
        The configuration to build, and the one to record, which describes the network without
        reference to its weights.

    Raises:
        UserError: the weights cannot be read.
    """
    from vclr_lightning.models.run_record import run_config
    from vclr_lightning.stages.shared.network import network_spec

    if "backbone" not in (cfg.get("module") or {}):
        features = cfg.get("features")
        cfg = _network_from_weights(
            cfg, None if features is None else features.weights, chosen=chosen
        )
        return cfg, cfg
    if not _is_open(cfg) or (checkpoint is not None and _is_open(run_config(checkpoint))):
        return cfg, cfg
    given = {key: value for key, value in cfg.backbone.items() if key != "_target_"}
    given["weights"] = given["weights"] if checkpoint is None else str(checkpoint)
    spec = network_spec(**given)
    pixels = spec.pop("_pixels_", None)
    cfg, recorded = cfg.copy(), cfg.copy()
    cfg.backbone.weights, recorded.backbone = given["weights"], spec
    # The default network keeps its draws; others are drawn again next to untrained ones.
    usual = spec == network_spec() and given["weights"] == cfg.init
    anew = checkpoint is not None or bool(cfg.stage.run.get("untrained"))
    return (recorded if (usual or anew) and pixels is None else cfg), recorded


def _network_from_weights(cfg: DictConfig, weights: str | None, *, chosen: bool) -> DictConfig:
    """Clear ``backbone`` where the weights describe their own network."""
    if cfg.get("backbone") is None:
        return cfg
    from vclr_lightning.models.checkpoints import read_checkpoint
    from vclr_lightning.models.network_spec import known_spec
    from vclr_lightning.models.trusted_networks import trusted_spec

    says = weights is not None and not chosen and Path(weights).is_file()
    if _is_open(cfg) or (says and trusted_spec(known_spec(read_checkpoint(str(weights))))):
        cfg = cfg.copy()
        cfg.backbone = None
    return cfg


def _is_open(cfg: Mapping[Any, Any]) -> bool:
    """Whether the network is that of the weights: ``backbone=as_init``."""
    target = str((cfg.get("backbone") or {}).get("_target_"))
    return target == "vclr_lightning.stages.shared.network.network_of"
