"""A run as `vclr bench` measures it: its configuration, composed as training composes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from vclr_lightning.app.configuration import plain, with_debug, with_network
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import readable

if TYPE_CHECKING:
    from vclr_lightning.bench import Parts

_EPOCHS = 10_000  # measuring ends before


@dataclass(frozen=True)
class Benchmarked:
    """The configuration of one process of a run.

    Attributes:
        cfg: of a run of one process, whose batch is one process's share.
        processes: of this machine, in the run itself.
    """

    cfg: DictConfig
    processes: int

    @property
    def augment(self) -> str | None:
        """``data.augment`` of the run."""
        value = OmegaConf.select(self.cfg, "data.augment")
        return None if value is None else str(value)

    @property
    def num_workers(self) -> int | None:
        """``data.num_workers`` of the run; ``None``: the cores that there are, less one."""
        value = OmegaConf.select(self.cfg, "data.num_workers")
        return None if value is None else int(value)

    def build(self, values: Mapping[str, Any]) -> Parts:
        """Return the parts of the run with other values, by key.

        Raises:
            UserError: whatever a part of the run finds wrong.
        """
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate

        from vclr_lightning.app.explain import explain
        from vclr_lightning.bench import parts_of
        from vclr_lightning.stages.shared.arguments import check_arguments

        cfg = self.cfg.copy()
        for key, value in values.items():
            OmegaConf.update(cfg, key, value)
        check_arguments(plain(cfg))
        try:
            stage = instantiate(cfg.stage.run)
        except InstantiationException as error:  # Hydra's, whatever a part of the run raised
            sentence = explain(error)
            if sentence is None:
                raise
            raise UserError(sentence) from error
        return parts_of(stage, Path(cfg.run_dir))


def benchmarked(
    overrides: Sequence[str], *, config_dir: Path | None = None, directory: Path
) -> Benchmarked:
    """Compose the configuration of a run, and leave out what does not belong to its speed.

    Initial weights, callbacks and loggers are left out, and the run's end; of several processes one
    is measured.

    Args:
        overrides: as of the training command.
        config_dir: folder of more options.
        directory: instead of the run's folder.

    Raises:
        UserError: the configuration is wrong, or of a stage that does not train on videos.
    """
    from vclr_lightning.data.loading.epochs import micro_batch_size
    from vclr_lightning.stages.shared.trainer import count_processes

    cfg = with_debug(_compose(overrides, config_dir))
    OmegaConf.set_struct(cfg, False)
    if not cfg.stage.get("trains", True) or "trainer" not in cfg.stage.run:
        raise UserError(
            f"stage={cfg.stage.name} does not train on videos; `vclr bench` measures stages that "
            "do: pretrain, demo, finetune"
        )
    if cfg.init == "required":
        cfg.init = None
    if "init" in cfg.stage.run:
        cfg.stage.run.init = None
    cfg.callbacks, cfg.logger, cfg.run_dir = {}, {}, str(directory)
    cfg.trainer.profiler = cfg.trainer.limit_train_batches = None
    cfg.trainer.overfit_batches, cfg.trainer.max_epochs = 0, _EPOCHS
    plain(cfg)
    cfg, _ = with_network(cfg)
    config = plain(cfg)
    trainer = config["trainer"]
    processes = count_processes(trainer["accelerator"], trainer["devices"])
    world = processes * int(trainer["num_nodes"])
    if world > 1:
        micro_batch_size(
            config["batch_size"], world_size=world, accumulate=trainer["accumulate_grad_batches"]
        )
        cfg.batch_size = config["batch_size"] // world
        cfg.trainer.devices = cfg.trainer.num_nodes = 1
    return Benchmarked(cfg, processes)


def _compose(overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    from hydra import compose, initialize_config_module

    # What the parts tell about the run itself does not belong to measuring it.
    logging.getLogger("vclr_lightning").setLevel(logging.ERROR)
    more = []
    if config_dir is not None:
        if not config_dir.is_dir():
            raise UserError(f"--config-dir {config_dir} is no folder")
        more.append(f"hydra.searchpath=['file://{config_dir.absolute()}']")
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=[*readable(overrides), *more])
