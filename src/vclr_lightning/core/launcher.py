"""Which launcher started this process, and as which rank, by the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from vclr_lightning.core.errors import UserError

VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
)
"""Variables that a command started by this process must not inherit: it would act as a rank."""

# Each launcher, and its variables: one that identifies it, the number of processes, those of this
# machine (srun: the number of machines), and the rank.
_LAUNCHERS = (
    ("torchrun", "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK"),
    ("srun", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_PROCID"),
    ("jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_SIZE", "", "JSM_NAMESPACE_RANK"),
    (
        *("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"),
        *("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_RANK"),
    ),
    ("mpirun", "PMI_SIZE", "PMI_SIZE", "", "PMI_RANK"),
)


@dataclass(frozen=True)
class Launch:
    """How a process was started.

    Attributes:
        by: ``"torchrun"``, ``"srun"``, ``"jsrun"``, ``"mpirun"``, or ``"hand"`` for ranks whose
            variables were set by hand or by Lightning; ``None`` where this is the only process so
            far and starts the others, if any.
        rank: its number among all processes of the run.
    """

    by: str | None
    rank: int


def check_rank_variables(environment: Mapping[str, str]) -> None:
    """Raise ``UserError`` for ranks that are no numbers: importing Lightning would fail."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        _number(environment, name, 0)


def find_launch(
    environment: Mapping[str, str], *, devices: int, nodes: int = 1, alone: bool = False
) -> Launch:
    """Return how this process was started, if that agrees with the run's processes.

    Args:
        environment: variables, such as ``os.environ``.
        devices: the run's processes on each machine.
        nodes: machines.
        alone: the command is run once and starts its ``devices`` processes itself.

    Raises:
        UserError: a launcher started another number of processes, or some of its variables are left
            in the environment; the run would wait for ranks that nobody starts, or run several
            times over.

    Example:
        >>> find_launch({}, devices=2)
        Launch(by=None, rank=0)
        >>> slurm = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
        >>> find_launch(slurm, devices=2)
        Launch(by='srun', rank=1)
        >>> find_launch(slurm, devices=1)
        Traceback (most recent call last):
        vclr_lightning.core.errors.UserError: srun started 2 processes of this command, and \
trainer.devices=1 x trainer.num_nodes=1 makes 1; give trainer.devices=2, or run the command once
    """
    if alone:
        devices = nodes = 1
    for by, known, size, share, rank in _LAUNCHERS:
        if known not in environment:
            continue
        started = _number(environment, size, _number(environment, "SLURM_NTASKS", 1))
        # A single task of a batch system starts the others itself, on its machine.
        if by != "torchrun" and started == 1 and nodes == 1:
            break
        each = _number(environment, share, started // nodes)
        if by == "srun":
            each = started // max(1, _number(environment, share, nodes))
        if started != devices * nodes or each != devices:
            raise UserError(_mismatch(by, started, each, devices, nodes, alone=alone))
        if by == "mpirun" and find_spec("mpi4py") is None:
            raise UserError(
                f"mpirun started {started} processes, which need mpi4py to find each other; pip "
                "install mpi4py, or start the command by torchrun"
            )
        return Launch(by, _number(environment, rank, 0))
    return _by_hand(environment, devices=devices, nodes=nodes)


def _mismatch(by: str, started: int, each: int, devices: int, nodes: int, *, alone: bool) -> str:
    begun = f"{by} started {started} process{'es' * (started > 1)} of this command"
    if alone:
        return (
            f"{begun}, which starts its processes itself; run the command once, with "
            "trainer.devices=N"
        )
    machines = started // each if each and started % each == 0 else 1
    fitting = f"trainer.devices={started // machines}"
    fitting += f" trainer.num_nodes={machines}" if machines != nodes else ""
    return (
        f"{begun}, and trainer.devices={devices} x trainer.num_nodes={nodes} makes "
        f"{devices * nodes}; give {fitting}, or run the command once"
        + (", without torchrun" if by == "torchrun" else "")
    )


def _by_hand(environment: Mapping[str, str], *, devices: int, nodes: int) -> Launch:
    """Without a launcher: a rank whose environment is complete, or one process without any."""
    wanted = devices * nodes
    ranks = [name for name in ("RANK", "LOCAL_RANK") if name in environment]
    world = _number(environment, "WORLD_SIZE", wanted)
    whole = {"LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys()
    if whole and world == wanted > 1:
        first = _number(environment, "NODE_RANK", 0) * devices
        return Launch(
            "hand", _number(environment, "RANK", first + _number(environment, "LOCAL_RANK", 0))
        )
    alone = wanted == 1 and not any(_number(environment, name, 0) for name in ranks)
    if world != wanted or (ranks and not alone):
        left = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in environment]
        raise UserError(
            f"the environment holds {' '.join(f'{n}={environment[n]}' for n in left)} of a "
            f"launcher that did not start this command, which is to be {wanted} "
            f"process{'es' * (wanted > 1)}; unset them (env {' '.join(f'-u {n}' for n in left)} "
            "python ...), or start it by torchrun"
        )
    tasks = _number(environment, "SLURM_NTASKS", 1)
    if wanted > 1 and tasks > 1:
        raise UserError(
            f"SLURM holds {tasks} tasks for this job, and the command was started without srun, "
            f"once; start it as `srun python ...` for {wanted} processes, or ask for one task, "
            "which starts them itself"
        )
    if nodes > 1 and "NODE_RANK" not in environment:
        raise UserError(
            f"trainer.num_nodes={nodes} needs a launcher that starts the command on every machine: "
            "torchrun, or srun in a job of SLURM"
        )
    return Launch(None, 0)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name)
    if value is None:
        return default
    if not value.strip().isdigit():
        raise UserError(f"{name}={value!r} of the environment is no number; unset it")
    return int(value)
