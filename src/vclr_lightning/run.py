"""Run what a configuration describes; the only place that sees one."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from vclr_lightning import __version__
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.processes import end_with_parent

logger = logging.getLogger(__name__)


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


def run(cfg: DictConfig) -> dict[str, float]:
    """Run the stage of ``cfg``, or continue it where it stopped.

    Returns:
        What the stage measured; with ``best``, if it monitors something.

    Raises:
        UserError: something in the configuration, or in what it points to, is wrong.
    """
    cfg = with_debug(cfg)
    trains = cfg.stage.get("trains", True)
    if not trains:
        cfg = of_finished(cfg)
    config = plain(cfg)
    follow_parent()

    from hydra.utils import instantiate
    from pytorch_lightning import seed_everything

    from vclr_lightning.callbacks.ranks import is_first
    from vclr_lightning.callbacks.run_log import note
    from vclr_lightning.stages.arguments import check_arguments
    from vclr_lightning.stages.resume import Start, check_same_run, choose_start, set_aside

    check_arguments(config)

    directory = Path(config["run_dir"])
    start = Start(None, own=False)
    if trains:
        start = choose_start(directory, resume=config["resume"], ckpt=config["ckpt"])
    if start.checkpoint is not None:
        check_same_run(start.checkpoint, config=config, given=_given(), derived=derived_keys(cfg))
    if is_first():
        if config["resume"] == "never" and (aside := set_aside(directory)):
            logger.info("the run that was in %s is now in %s", directory, aside)
        _write(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        note(f"vclr_lightning {__version__} in {directory}: {' '.join(sys.argv)}")
        if start.checkpoint is not None:
            logger.info("continuing from %s", start.checkpoint)
    seed_everything(int(config["seed"]), verbose=False)
    stage = instantiate(cfg.stage.run)
    begin = {"checkpoint": start.checkpoint} if trains else {}
    values: dict[str, float] = stage(
        directory=directory, **begin, metadata={"config": config, "version": __version__}
    )
    result = directory / "result.json"
    if start.own and result.exists():  # a run that is complete measures nothing anew
        values = json.loads(result.read_text()) | values
    if is_first():
        _write(result, json.dumps(values, indent=1) + "\n")
    return values


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain values.

    Raises:
        UserError: a value that has to be given is missing, or is not what it must be.

    Example:
        >>> plain(OmegaConf.create({"a": 1, "b": "${a}"}))
        {'a': 1, 'b': 1}
    """
    for key, least in _COUNTS.items():  # others are computed from these
        _check_count(key, _value(cfg, key, least), least)
    try:
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing[0]} is missing; give {missing[0]}=...")
        content = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationResolutionError as error:
        raise _not_computed(cfg, error) or error from error
    assert isinstance(content, dict)
    if content.get("init") == "required":
        raise UserError(
            "the weights to start from are missing; give init=moco_v2_200ep_pretrain.pth.tar with"
            " its path, or init=none for random weights"
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
    found = set()

    def look(node: Any, prefix: str) -> None:
        keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
        for key in keys:
            name = f"{prefix}{key}"
            if OmegaConf.is_interpolation(node, key):
                found.add(name)
            elif not OmegaConf.is_missing(node, key) and OmegaConf.is_config(node[key]):
                look(node[key], f"{name}.")

    look(cfg, "")
    return found


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


def of_finished(cfg: DictConfig) -> DictConfig:
    """Complete the configuration of a stage that trains nothing by what its weights are of.

    Raises:
        UserError: no weights are named, or other processes run the same command.
    """
    if cfg.ckpt is None:
        raise UserError(
            f"stage={cfg.stage.name} needs weights; give ckpt=PATH of a checkpoint, or ckpt=none "
            "with backbone=NAME for an untrained network"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"stage={cfg.stage.name} starts its processes itself; run the command once, with "
            "trainer.devices=N"
        )
    from vclr_lightning.stages.adopt import adopted

    cfg = cfg.copy()
    if str(cfg.ckpt).lower() != "none":
        cfg.ckpt = str(Path(str(cfg.ckpt)).expanduser())
    for key, value in adopted(cfg, cfg.ckpt).items():
        OmegaConf.update(cfg, key, value)
    return cfg


def _given() -> list[str] | None:
    """Return the keys that the command gives values, not choices; ``None`` without a command."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    keys = [override.split("=")[0].lstrip("+~") for override in hydra.overrides.task]
    return [key for key in keys if key not in hydra.runtime.choices]


def follow_parent() -> None:
    """Let a process that Lightning launched end when its launcher is killed."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        end_with_parent()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
