"""The process group of a stage that does not train, but shares its work among a launcher's ranks.

A training gets its group from Lightning. Here nothing but control messages is exchanged, so the
group is one of gloo, whatever the devices are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from vclr_lightning.core import distributed
from vclr_lightning.core.launcher import find_launch
from vclr_lightning.stages.shared.trainer import cluster_environment, count_processes

# Ranks wait for the slowest one at the end of a split, which may be hours later on another machine.
# One that ends is noticed at once; one whose data workers hang ends by data.timeout.
_PATIENCE = timedelta(days=7)


@contextmanager
def rank_group(trainer: Mapping[str, Any]) -> Iterator[None]:
    """Connect the ranks that torchrun, srun or mpirun started, on one machine or several.

    Without a launcher nothing happens: the stage then starts a process for each device itself.

    Args:
        trainer: arguments of :func:`~vclr_lightning.stages.shared.trainer.build_trainer`, of which
            ``accelerator``, ``devices`` and ``num_nodes`` matter.

    Raises:
        UserError: a launcher started another number of processes.

    Example:
        >>> with rank_group({"accelerator": "cpu"}):
        ...     distributed.world_size()
        1
    """
    devices = count_processes(trainer.get("accelerator", "auto"), trainer.get("devices", 1))
    nodes = trainer.get("num_nodes", 1)
    launch = find_launch(os.environ, devices=devices, nodes=nodes)
    if launch.by is None:
        yield
        return
    environment = cluster_environment(launch.by, devices)
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    before = distributed.control_timeout
    distributed.control_timeout = _PATIENCE
    torch.distributed.init_process_group(
        "gloo", rank=launch.rank, world_size=devices * nodes, timeout=_PATIENCE
    )
    try:
        yield
    finally:
        distributed.control_timeout = before
        torch.distributed.destroy_process_group()
