"""Run what a configuration describes."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vclr_lightning import __version__
from vclr_lightning.app.backbones import project_folders, remembering_network, vouching
from vclr_lightning.app.configuration import (
    derived_keys,
    resolved,
    with_checkpoint_values,
    with_debug,
    with_network,
)
from vclr_lightning.app.resolvers import group_shared
from vclr_lightning.app.run_loggers import choices, hyper_parameters, logged
from vclr_lightning.core.errors import UserError, causes
from vclr_lightning.core.files import replacing
from vclr_lightning.core.locks import in_use
from vclr_lightning.core.reading import read_numbers

logger = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, float]:
    """Run the stage of ``cfg``, or continue it where it stopped.

    Returns:
        What the stage measured; with ``best`` if it monitors a metric.

    Raises:
        UserError: the configuration, or a file that it names, is wrong.
    """
    _check_recipe()
    if OmegaConf.is_list(cfg.get("objective")):
        raise UserError("objective must be a mapping of samplers, objectives, ..., not a list")
    cfg = with_debug(cfg)
    with vouching(cfg, project_folders()):
        return _complete_and_run(cfg)


def _complete_and_run(cfg: DictConfig) -> dict[str, float]:
    """Complete and check the configuration, and run its stage in a folder of its own."""
    trains = cfg.stage.get("trains", True)
    words = _overrides()
    chosen = words is None or any(word.partition(".")[0] == "backbone" for word in words)
    if not trains:
        cfg = with_checkpoint_values(cfg, chosen=chosen)
    config = resolved(cfg)

    from vclr_lightning.core.distributed import is_rank_zero
    from vclr_lightning.stages.shared.arguments import check_arguments
    from vclr_lightning.stages.shared.rank_group import rank_group
    from vclr_lightning.stages.shared.trainer import join_launch

    check_arguments(config)
    trainer = config.get("trainer", {})
    shares = cfg.stage.get("shares", False)
    join_launch(trainer, alone=not trains and not shares)
    directory = Path(config["run_dir"])
    with (
        in_use(directory) if is_rank_zero() else nullcontext(),
        rank_group(trainer) if shares else nullcontext(),
    ):
        return _run(cfg, config, directory, chosen=chosen)


def _run(
    cfg: DictConfig, config: dict[str, Any], directory: Path, *, chosen: bool
) -> dict[str, float]:
    """Run in a folder that no other process uses."""
    from hydra.utils import instantiate

    from vclr_lightning.callbacks.run_log import note
    from vclr_lightning.core.distributed import is_rank_zero
    from vclr_lightning.core.lightning import seed_everything
    from vclr_lightning.results import Result, log_result
    from vclr_lightning.stages.shared.resume import check_same_run, choose_start, set_aside

    trains = cfg.stage.get("trains", True)
    start: Path | None = None
    if trains:
        start = choose_start(directory, resume=config["resume"], ckpt=config["ckpt"])
        cfg, recorded = with_network(cfg, start, chosen=chosen)
        config = resolved(recorded)
    if start is not None:
        check_same_run(start, config=config, given=_given_keys(), derived=derived_keys(cfg))
    if is_rank_zero():
        if config["resume"] == "never" and (aside := set_aside(directory)):
            logger.info("the run in %s has been moved to %s", *map(_quoted, (directory, aside)))
        _write(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        note(f"vclr_lightning {__version__} in {directory}: {shlex.join(sys.argv)}")
        if start is not None:
            logger.info("continuing from %s", _quoted(start))
    seed_everything(int(config["seed"]), verbose=False)
    with _full_keys(config):
        stage = instantiate(remembering_network(cfg).stage.run)
        training: dict[str, Any] = {}
        if trains:
            metadata = {"config": config, "version": __version__}
            training = {"checkpoint": start, "metadata": metadata}
        loggers: dict[str, Any] = {}
        if is_rank_zero():  # another stage than a training has no loggers of its own
            own = getattr(stage, "keywords", {}).get("loggers")
            loggers = (instantiate(cfg.get("logger")) if own is None else own) or {}
        about = hyper_parameters(config, choices())
        with group_shared(str(config["name"])), logged(loggers, about) as sinks:
            measured = stage(directory=directory, **training)
            values: dict[str, float] = dict(measured)
            result = directory / "result.json"
            if start == directory / "last.ckpt" and result.exists():
                values = read_numbers(result) | values  # a complete run measures nothing again
            if is_rank_zero():
                _write(result, json.dumps(values, indent=1) + "\n")
                if isinstance(measured, Result):
                    log_result(measured, sinks, directory)
    return values


@contextmanager
def _full_keys(config: Mapping[str, Any]) -> Iterator[None]:
    """Complete an error about an argument by its key in the configuration."""
    from vclr_lightning.stages.shared.arguments import with_key

    try:
        yield
    except Exception as error:
        mistake = next((c for c in causes(error) if isinstance(c, UserError)), None)
        if mistake is None or (said := with_key(str(mistake), config)) == str(mistake):
            raise
        raise UserError(said) from error


def _overrides() -> list[str] | None:
    """Return the keys and groups in the command; ``None`` without a command."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    return [word.split("=")[0].lstrip("+~") for word in HydraConfig.get().overrides.task]


def _given_keys() -> list[str] | None:
    """Return the keys in the command that are values, not groups; ``None`` without a command."""
    from hydra.core.hydra_config import HydraConfig

    words = _overrides()
    return words and [key for key in words if key not in HydraConfig.get().runtime.choices]


def _check_recipe() -> None:
    """Refuse a recipe that no stage has; Hydra accepts it, as the group is optional."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return
    chosen = HydraConfig.get().runtime.choices.get("recipe") or "none"
    options = GlobalHydra.instance().config_loader().get_group_options
    stages = options("stage")
    of_stages = [f"{stage}/{name}" for stage in stages for name in options(f"recipe/{stage}")]
    there = sorted([*options("recipe"), *of_stages])
    stage, _, name = chosen.rpartition("/")
    known = {path.split("/")[1] for path in of_stages} if stage else {"none", *options("recipe")}
    if name not in known:
        raise UserError(f"there is no recipe={chosen}; give one of: {', '.join(there)}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _write(path: Path, text: str) -> None:
    with replacing(path) as sink:
        sink.write(text.encode())
