"""The Lightning trainer of a run."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast

import torch

from vclr_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.launcher import find_launch
from vclr_lightning.core.lightning import (
    AcceleratorRegistry,
    Callback,
    Checkpoint,
    ClusterEnvironment,
    LightningEnvironment,
    LightningModule,
    Logger,
    LSFEnvironment,
    MisconfigurationException,
    MPIEnvironment,
    ProgressBar,
    SLURMEnvironment,
    TorchElasticEnvironment,
    Trainer,
    rank_zero_only,
)
from vclr_lightning.core.processes import follow_parent
from vclr_lightning.stages.shared.ddp import WatchedDDP
from vclr_lightning.stages.shared.device_defaults import (
    DeviceLog,
    choose_benchmark,
    use_precision,
)
from vclr_lightning.stages.shared.hardware import fastest_precision


class LogEveryEpoch(Callback):
    """Shortens ``log_every_n_steps`` to the steps of an epoch where an epoch has fewer.

    The last step of each short epoch is logged then. Works with any LightningModule.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches, fitting = trainer.num_training_batches, cast(Any, trainer)
        if not fitting.log_every_n_steps or not math.isfinite(batches) or batches < 1:
            return
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        fitting.log_every_n_steps = min(fitting.log_every_n_steps, steps)


def build_trainer(
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    max_epochs: int | None = None,
    max_steps: int | None = None,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    num_nodes: int = 1,
    precision: Any = "32-true",
    accumulate_grad_batches: int = 1,
    deterministic: bool = False,
    benchmark: bool | None = None,
    matmul_precision: str = "high",
    log_every_n_steps: int = 10,
    threads: int | None = None,
    timeout: float = 1800.0,
    directory: Any = None,
    **options: Annotated[Any, Trainer],
) -> Trainer:
    """Build a trainer that can continue a run bit for bit.

    On several processes it uses DDP without broadcasting buffers: the queues are equal on all ranks
    by construction. The data module splits each batch over the ranks, checkpoints are written
    atomically, and requeueing is left to the job scheduler.

    Args:
        callbacks: of the run.
        loggers: of its metrics.
        max_epochs: length of the run; where there is a ``max_steps``, ``None`` for no such limit.
        max_steps: optimizer steps after which the run ends, if no epoch has ended it before.
        accelerator: auto, cpu, gpu and so on.
        devices: processes of this machine, or which devices, or auto.
        num_nodes: machines.
        precision: 32-true, 16-mixed, bf16-mixed, or another of Lightning's; auto: see
            :func:`~vclr_lightning.stages.shared.hardware.fastest_precision`.
        accumulate_grad_batches: micro-batches per optimizer step.
        deterministic: refuse non-deterministic operations.
        benchmark: let cuDNN search for its fastest algorithms; ``None``: on GPUs, unless
            ``deterministic``.
        matmul_precision: of float32 on tensor cores: highest, high (TF32) or medium.
        log_every_n_steps: optimizer steps between two rows of the logs, or an epoch, if shorter.
        threads: of each process for computing on the CPU; by default one per core. Where data
            workers need the cores, fewer are much faster.
        timeout: seconds that a process waits for another one before the run fails.
        directory: the run's folder.
        options: further arguments of :class:`pytorch_lightning.Trainer`.

    Raises:
        UserError: there is no such accelerator, or an argument is out of range.
    """
    if matmul_precision not in ("highest", "high", "medium"):
        raise UserError(f"matmul_precision={matmul_precision} must be highest, high or medium")
    for name, value in {
        "epochs": 1 if max_epochs is None else max_epochs,
        "steps": 1 if max_steps is None else max_steps,
        "num_nodes": num_nodes,
        "accumulate_grad_batches": accumulate_grad_batches,
        "log_every_n_steps": log_every_n_steps,
        "threads": 1 if threads is None else threads,
        "timeout": timeout,
    }.items():
        if value < 1:
            raise UserError(f"{name}={value} must be 1 or more")
    if max_epochs is None and max_steps is None:
        raise UserError("the length of the run is missing; give epochs=... or steps=...")
    _check_limits(options)
    if precision == "auto":
        precision = fastest_precision(accelerator)
    use_precision(accelerator, matmul_precision=matmul_precision)
    benchmark = choose_benchmark(accelerator, benchmark=benchmark, deterministic=deterministic)
    if threads is not None:
        torch.set_num_threads(threads)
    _quiet()
    each = count_processes(accelerator, devices)
    several = num_nodes > 1 or each > 1
    launch = find_launch(os.environ, devices=each, nodes=num_nodes)
    plugins: list[Any] = [AtomicCheckpointIO(restart="init"), cluster_environment(launch.by, each)]
    follow_parent()
    try:
        return Trainer(
            callbacks=[*callbacks, LogEveryEpoch(), DeviceLog()],
            logger=list(loggers),
            strategy=WatchedDDP(timeout) if several else "auto",
            plugins=plugins,
            max_epochs=-1 if max_epochs is None else max_epochs,
            max_steps=-1 if max_steps is None else max_steps,
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            precision=precision,
            accumulate_grad_batches=accumulate_grad_batches,
            deterministic=deterministic,
            benchmark=benchmark,
            log_every_n_steps=log_every_n_steps,
            default_root_dir=directory,
            use_distributed_sampler=False,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the trainer cannot be set up: {reason}") from error


def join_launch(trainer: Mapping[str, Any], *, alone: bool = False) -> None:
    """Find this process's rank in the run, which decides whether it writes files.

    See :func:`~vclr_lightning.core.launcher.find_launch`; ``trainer`` holds the arguments of
    :func:`build_trainer`.
    """
    devices = count_processes(trainer.get("accelerator", "auto"), trainer.get("devices", 1))
    nodes = trainer.get("num_nodes", 1)
    launch = find_launch(os.environ, devices=devices, nodes=nodes, alone=alone)
    rank_zero_only.rank = launch.rank  # type: ignore[attr-defined]


def cluster_environment(launcher: str | None, devices: int) -> ClusterEnvironment:
    """The cluster environment of a launcher, so that Lightning detects nothing by itself."""
    if launcher == "srun":
        os.environ["SLURM_NTASKS_PER_NODE"] = str(devices)  # of this step, as find_launch checked
        os.environ["SLURM_NTASKS"] = os.environ.get("SLURM_STEP_NUM_TASKS", str(devices))
        # Lightning's requeueing would save in the middle of a step.
        return SLURMEnvironment(auto_requeue=False)
    kinds: dict[str | None, Callable[[], ClusterEnvironment]] = {
        "torchrun": TorchElasticEnvironment,
        "jsrun": LSFEnvironment,
        "mpirun": MPIEnvironment,
    }
    return kinds.get(launcher, LightningEnvironment)()


def _check_limits(options: Mapping[str, Any]) -> None:
    """Refuse numbers that the trainer silently accepts or misinterprets."""
    clip = options.get("gradient_clip_val")
    if clip is not None and not (_is_number(clip) and 0 < clip < math.inf):
        raise UserError(f"trainer.gradient_clip_val={clip} must be above 0; null clips nothing")
    for name, least, otherwise in (
        ("limit_train_batches", 1, "null takes all"),
        ("overfit_batches", 0, "0 trains on all"),
    ):
        value = options.get(name)
        if value is None:
            continue
        whole = isinstance(value, int)
        if not _is_number(value) or not (value >= least if whole else 0 < value <= 1):
            raise UserError(
                f"trainer.{name}={value} must be a number of batches, {max(least, 1)} or more, or "
                f"a share of them such as 0.5; {otherwise}"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def count_processes(accelerator: str, devices: int | str | list[int]) -> int:
    """Return the processes of this machine.

    Example:
        >>> count_processes("cpu", 2), count_processes("gpu", [0, 3])
        (2, 2)
    """
    if isinstance(devices, list):
        return len(devices)
    if str(devices).lstrip("-").isdigit() and int(devices) >= 0:
        return int(devices)
    if accelerator in ("auto", "gpu", "cuda"):
        return max(1, torch.cuda.device_count())
    if accelerator in AcceleratorRegistry and str(devices) == "auto":
        return 1
    return len(str(devices).split(","))


def _quiet() -> None:
    """Keep Lightning's advice about its products and defaults out of a run's log."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",
        ".*broadcast_buffers.*",
        ".*does not have many workers.*",
        ".*The `srun` command is available.*",
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)
