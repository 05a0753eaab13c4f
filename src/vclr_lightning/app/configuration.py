"""The configuration of a run: what composition leaves open is settled, and the rest is checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from vclr_lightning.core.errors import UserError

_DERIVED = object()
_REQUIRED = "required"  # init, where an experiment leaves it to the user
_SEVERAL = {"roots", "annotations", "manifests", "cache_dir"}  # keys of data=roots

# Whole numbers, and the least that makes sense.
_COUNTS = {
    "num_segments": 1,
    "frames_per_clip": 1,
    "frame_stride": 1,
    "image_size": 1,
    "batch_size": 1,
    "queue_size": 1,
    "epochs": 1,
    "seed": 0,
}
_RATES = ("optim.base_lr", "switch.final_lr")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain values.

    Raises:
        UserError: a value that has to be given is missing, or is not what it must be.

    Example:
        >>> plain(OmegaConf.create({"a": 1, "b": "${a}"}))
        {'a': 1, 'b': 1}
    """
    data = cfg.get("data") or {}
    if "roots" in data and ("evaluations" not in cfg.stage.run or not set(data) <= _SEVERAL):
        raise UserError(
            "a suite names data sets of its own (data.roots), and this run one besides; leave"
            " +suite=... out, or the experiment, data=... or stage=... beside it"
        )
    _check_finite(cfg)
    for key, least in _COUNTS.items():  # others are computed from these
        _check_count(key, _value(cfg, key, least), least)
    for key in _RATES:
        rate = _value(cfg, key, 0)
        if not isinstance(rate, int | float) or rate < 0:
            raise UserError(f"{key}={rate!r} must be a number, 0 or more")
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
    """One value, or the default where it is not there, or made of others that are wrong."""
    try:
        return OmegaConf.select(cfg, key, default=default)
    except InterpolationResolutionError:
        return default


def _check_count(key: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{key}={value!r} must be a whole number, {least} or more")


def _not_computed(cfg: DictConfig, error: InterpolationResolutionError) -> UserError | None:
    """Name the values that another one cannot be computed from."""
    if error.full_key is None:
        return None
    *parents, last = error.full_key.split(".")
    node = OmegaConf.select(cfg, ".".join(parents)) if parents else cfg
    if not isinstance(node, DictConfig) or not OmegaConf.is_interpolation(node, last):
        return None
    formula = str(OmegaConf.to_container(node, resolve=False)[last])  # type: ignore[call-overload,index]
    values = {key: _value(cfg, key, None) for key in re.findall(r"\$\{([\w.]+)\}", formula)}
    # Words are what nothing can be computed with, as a rule.
    wrong = {key: v for key, v in values.items() if isinstance(v, str)} or values
    if not wrong:
        return None
    named = " and ".join(f"{key}={value!r}" for key, value in wrong.items())
    return UserError(f"{error.full_key} cannot be computed from {named}; give a number")


def derived_keys(cfg: DictConfig) -> set[str]:
    """Return the keys whose values are made of others'.

    Example:
        >>> sorted(derived_keys(OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": ["${a}"]}})))
        ['b.c', 'b.d.0']
    """
    return {name for name, _, _, value in _entries(cfg) if value is _DERIVED}


def _entries(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """All values by dotted key, with the node that holds them and their key there."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        name = f"{prefix}{key}"
        if OmegaConf.is_interpolation(node, key):
            yield name, node, key, _DERIVED
        elif not OmegaConf.is_missing(node, key):
            if OmegaConf.is_config(node[key]):
                yield from _entries(node[key], f"{name}.")
            else:
                yield name, node, key, node[key]


def _check_finite(cfg: DictConfig) -> None:
    for name, node, key, value in _entries(cfg):
        if isinstance(value, float) and not math.isfinite(value):
            from vclr_lightning.stages.shared.arguments import admits_infinity

            if not admits_infinity(node, key):
                raise UserError(f"{name}={value} must be a finite number")


def with_debug(cfg: DictConfig) -> DictConfig:
    """Put the values of ``debug`` in place, after all others, where there are such keys.

    Hydra merges an experiment after the groups, so that it would win over a plain one.

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


def of_finished(cfg: DictConfig, *, chosen: bool = True) -> DictConfig:
    """Complete the configuration of a stage that trains nothing by what its weights are of.

    Args:
        cfg: of the run.
        chosen: see :func:`with_network`.

    Raises:
        UserError: no weights are named.
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
    cfg = _of_its_weights(cfg, cfg.ckpt, chosen=chosen)
    for key, value in inherited_settings(cfg, cfg.ckpt).items():
        OmegaConf.update(cfg, key, value)
    return cfg


def with_network(
    cfg: DictConfig, checkpoint: Path | None = None, *, chosen: bool = True
) -> tuple[DictConfig, DictConfig]:
    """Settle which network a stage trains, or sees through: that of the weights it begins with.

    Args:
        cfg: of the run.
        checkpoint: what the run continues; ``init`` counts where there is none.
        chosen: whether the command names ``backbone``. An experiment that does is overruled by the
            weights where their network is only looked through.

    Returns:
        What is to be built, and what is recorded: how to build the network again, not whose it is.

    Raises:
        UserError: the weights cannot be read.
    """
    from vclr_lightning.stages.shared.network import network_spec
    from vclr_lightning.stages.shared.run_config import run_config

    if "backbone" not in (cfg.get("module") or {}):
        features = cfg.get("features")
        cfg = _of_its_weights(cfg, None if features is None else features.weights, chosen=chosen)
        return cfg, cfg
    if not _is_open(cfg) or (checkpoint is not None and _is_open(run_config(checkpoint))):
        return cfg, cfg
    given = {key: value for key, value in cfg.backbone.items() if key != "_target_"}
    given["weights"] = given["weights"] if checkpoint is None else str(checkpoint)
    spec = network_spec(**given)
    pixels = spec.pop("_pixels_", None)
    cfg, recorded = cfg.copy(), cfg.copy()
    cfg.backbone.weights, recorded.backbone = given["weights"], spec
    # Drawn as ever where it is the usual one; anew each time where untrained ones stand beside it.
    usual = spec == network_spec() and given["weights"] == cfg.init
    anew = checkpoint is not None or bool(cfg.stage.run.get("untrained"))
    return (recorded if (usual or anew) and pixels is None else cfg), recorded


def _of_its_weights(cfg: DictConfig, weights: str | None, *, chosen: bool) -> DictConfig:
    """Leave the network to the weights that it is finished with, where they say theirs."""
    if cfg.get("backbone") is None:
        return cfg
    from vclr_lightning.models.checkpoints import read_checkpoint
    from vclr_lightning.models.network_spec import known_spec, trusted_spec

    says = weights is not None and not chosen and Path(weights).is_file()
    if _is_open(cfg) or (says and trusted_spec(known_spec(read_checkpoint(str(weights))))):
        cfg = cfg.copy()
        cfg.backbone = None
    return cfg


def _is_open(cfg: Mapping[Any, Any]) -> bool:
    """Whether the network is that of weights: ``backbone=as_init``."""
    target = str((cfg.get("backbone") or {}).get("_target_"))
    return target == "vclr_lightning.stages.shared.network.network_of"
