"""Who started the process: every launcher, what is left of one, and what does not go together."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.launcher import find_launch

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "MASTER_ADDR": "h",
    "MASTER_PORT": "1",
    "GROUP_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SRUN = {
    **BATCH,
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
}
CHILD = {
    "MASTER_ADDR": "h",
    "MASTER_PORT": "1",
    "NODE_RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
}


@pytest.mark.parametrize(
    ("environment", "run", "by", "rank"),
    [
        ({}, {"devices": 1}, None, 0),
        ({}, {"devices": 8}, None, 0),
        (TORCHRUN, {"devices": 2}, "torchrun", 1),
        ({**SRUN, **TORCHRUN}, {"devices": 2}, "torchrun", 1),
        (SRUN, {"devices": 2, "nodes": 2}, "srun", 3),
        (BATCH, {"devices": 1}, None, 0),  # salloc, or a batch script
        ({**BATCH, "SLURM_NTASKS": "1"}, {"devices": 2}, None, 0),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, {"devices": 2}, None, 0),
        (BATCH, {"devices": 4, "alone": True}, None, 0),
        (CHILD, {"devices": 2, "nodes": 2}, "hand", 3),  # of Lightning's
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, {"devices": 1}, None, 0),
        ({"MASTER_ADDR": "h", "NODE_RANK": "1"}, {"devices": 2, "nodes": 2}, None, 0),
        ({"JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "1"}, {"devices": 2}, "jsrun", 1),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, {"devices": 1}, None, 0),
    ],
)
def test_what_goes_together(
    environment: dict[str, str], run: dict[str, Any], by: str | None, rank: int
) -> None:
    found = find_launch(environment, **run)
    assert (found.by, found.rank) == (by, rank)


@pytest.mark.parametrize(
    ("environment", "run", "words"),
    [
        (TORCHRUN, {"devices": 1}, ["torchrun started 2", "trainer.devices=2", "without torchrun"]),
        (TORCHRUN, {"devices": 2, "alone": True}, ["run the command once, with trainer.devices=N"]),
        (TORCHRUN, {"devices": 1, "nodes": 2}, ["give trainer.devices=2 trainer.num_nodes=1"]),
        (
            {**TORCHRUN, "WORLD_SIZE": "4"},
            {"devices": 4},
            ["torchrun started 4", "give trainer.devices=2 trainer.num_nodes=2"],
        ),
        (SRUN, {"devices": 1}, ["srun started 4", "give trainer.devices=2 trainer.num_nodes=2"]),
        (SRUN, {"devices": 4}, ["give trainer.devices=2 trainer.num_nodes=2"]),
        (BATCH, {"devices": 4}, ["4 tasks", "without srun", "srun python"]),
        ({"RANK": "1"}, {"devices": 1}, ["RANK=1", "env -u RANK python", "torchrun"]),
        ({"LOCAL_RANK": "1"}, {"devices": 1}, ["LOCAL_RANK=1"]),
        ({"LOCAL_RANK": "0"}, {"devices": 2}, ["LOCAL_RANK=0", "2 processes"]),
        ({"WORLD_SIZE": "4"}, {"devices": 1}, ["WORLD_SIZE=4"]),
        ({"WORLD_SIZE": "2"}, {"devices": 2, "alone": True}, ["WORLD_SIZE=2"]),
        ({**CHILD, "WORLD_SIZE": "3"}, {"devices": 2, "nodes": 2}, ["WORLD_SIZE=3", "4 processes"]),
        ({"LOCAL_RANK": "x"}, {"devices": 1}, ["LOCAL_RANK='x'", "no number"]),
        ({}, {"devices": 2, "nodes": 2}, ["trainer.num_nodes=2 needs a launcher"]),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {"devices": 1}, ["mpirun started 2"]),
        ({"PMI_SIZE": "2"}, {"devices": 2}, ["pip install mpi4py"]),
    ],
)
def test_what_does_not_is_said(
    environment: dict[str, str], run: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        find_launch(environment, **run)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("program", ["train", "cli"])
def test_a_rank_that_is_no_number_is_refused_before_others_read_it(program: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"vclr_lightning.{program}", "bench"],
        env=os.environ | {"SLURM_PROCID": "x"},
        capture_output=True,
        text=True,
    )
    said = "error: SLURM_PROCID='x' of the environment is no number; unset it\n"
    assert (run.returncode, run.stderr) == (2, said)
