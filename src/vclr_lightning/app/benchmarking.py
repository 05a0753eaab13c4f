"""``vclr bench`` and ``vclr plan``: compose a run's configuration and measure one process of it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from vclr_lightning.app.backbones import vouching
from vclr_lightning.app.configuration import resolved, with_debug, with_network
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import quote_overrides
from vclr_lightning.core.screen import notices_once

if TYPE_CHECKING:
    from vclr_lightning.bench import Bench, Length, Parts, Plan

_EPOCHS = 10_000  # measuring ends before


def benchmark(
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    seconds: float = 60.0,
    variants: bool = True,
) -> Bench:
    """Measure the run that a training command describes, without training.

    Initial weights, callbacks and loggers are left out; of several processes one is measured.

    Args:
        overrides: of the training command.
        config_dir: folder of more options.
        seconds: to measure for, roughly.
        variants: whether to measure what would help.

    Raises:
        UserError: the configuration is wrong, or its stage does not train on videos.
    """
    from vclr_lightning.bench import bench

    with _measured(overrides, config_dir) as (cfg, _, processes):
        data = cfg.get("data") or {}
        return bench(
            partial(_build, cfg),
            seconds=seconds,
            augment=data.get("augment"),
            num_workers=data.get("num_workers"),
            processes=processes,
            variants=variants,
        )


def plan_run(
    overrides: Sequence[str], *, config_dir: Path | None = None, seconds: float = 30.0
) -> Plan:
    """Take a few steps of the run that a training command describes, and say what it will take.

    Args:
        overrides: of the training command.
        config_dir: folder of more options.
        seconds: to measure for, roughly.

    Raises:
        UserError: the configuration is wrong, or its stage does not train on videos.
    """
    from vclr_lightning.bench import plan

    with _measured(overrides, config_dir) as (cfg, length, processes):
        return plan(
            partial(_build, cfg),
            length,
            seconds=seconds,
            num_workers=(cfg.get("data") or {}).get("num_workers"),
            processes=processes,
        )


@contextmanager
def _measured(
    overrides: Sequence[str], config_dir: Path | None
) -> Iterator[tuple[DictConfig, Length, int]]:
    """Yield the configuration of one process, the length of the run, and the processes of this
    machine; what is built within leaves no run."""
    # Warnings about the run itself belong to training it; the run is built more than once.
    logging.getLogger("vclr_lightning").setLevel(logging.ERROR)
    with ExitStack() as opened:
        opened.enter_context(notices_once())
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="vclr-bench-"))
        cfg = composed(overrides, config_dir)
        opened.enter_context(vouching(cfg, [] if config_dir is None else [config_dir]))
        yield _one_process(cfg, folder)


def composed(overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    """Return the configuration that a command describes."""
    from hydra import compose, initialize_config_module

    words = quote_overrides(overrides)
    if config_dir is not None:
        if not config_dir.is_dir():
            raise UserError(f"--config-dir {config_dir} is no folder")
        words.append(f"hydra.searchpath=['file://{config_dir.absolute()}']")
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        cfg = with_debug(compose("config", overrides=words))
    OmegaConf.set_struct(cfg, False)
    return cfg


def _one_process(cfg: DictConfig, folder: str) -> tuple[DictConfig, Length, int]:
    """Return the configuration of one process with its share of the batch, the length of the run,
    and the processes of this machine."""
    from vclr_lightning.bench import Length
    from vclr_lightning.data.loading.epochs import micro_batch_size
    from vclr_lightning.stages.shared.trainer import count_processes

    run = cfg.stage.run
    if not cfg.stage.get("trains", True) or "trainer" not in run:
        raise UserError(
            f"stage={cfg.stage.name} does not train on videos; this measures stages that "
            "do: pretrain, demo, finetune"
        )
    if cfg.init == "required":
        cfg.init = None
    if "init" in run:
        run.init = None
    keeps = (cfg.get("callbacks") or {}).get("checkpoint") or {}
    kept = 0 if not keeps else 1 if keeps.get("monitor") is None else 2
    limits = {name: cfg.trainer.get(name) for name in ("limit_train_batches", "max_epochs")}
    most = int(cfg.trainer.get("max_steps") or -1)
    cfg.callbacks, cfg.logger, cfg.run_dir = {}, {}, folder
    cfg.trainer.profiler = cfg.trainer.limit_train_batches = None
    cfg.trainer.overfit_batches, cfg.trainer.max_epochs = 0, _EPOCHS
    cfg.trainer.max_steps = None
    resolved(cfg)
    cfg, _ = with_network(cfg)
    config = resolved(cfg)
    trainer = config["trainer"]
    processes = count_processes(trainer["accelerator"], trainer["devices"])
    world = processes * int(trainer["num_nodes"])
    length = Length(
        epochs=None if limits["max_epochs"] is None else int(limits["max_epochs"]),
        steps=None if most < 0 else most,
        limit=limits["limit_train_batches"],
        batch=int(config["batch_size"]),
        accumulate=int(trainer["accumulate_grad_batches"]),
        world=world,
        checkpoints=kept,
    )
    if world > 1:
        micro_batch_size(
            config["batch_size"], world_size=world, accumulate=trainer["accumulate_grad_batches"]
        )
        cfg.batch_size = config["batch_size"] // world
        cfg.trainer.devices = cfg.trainer.num_nodes = 1
    return cfg, length, processes


def _build(cfg: DictConfig, values: Mapping[str, Any]) -> Parts:
    """Return the parts of the run with some settings changed."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from vclr_lightning.app.explain import explain
    from vclr_lightning.bench import parts_of
    from vclr_lightning.stages.shared.arguments import check_arguments

    cfg = cfg.copy()
    for key, value in values.items():
        OmegaConf.update(cfg, key, value)
    check_arguments(resolved(cfg))
    try:
        stage = instantiate(cfg.stage.run)
    except InstantiationException as error:  # Hydra's, around whatever a part of the run raised
        sentence = explain(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    return parts_of(stage, Path(cfg.run_dir))
