"""A rank that is killed, stopped or fails ends the others, in one sentence and in time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vclr_lightning.stages.shared.ddp import RankMonitor

SCRIPT = """
import os, signal, sys, time
import torch
from pytorch_lightning import LightningModule
from vclr_lightning.core import processes
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.stopping import stopped_by_signals
from vclr_lightning.stages.shared.trainer import build_trainer

what, who = sys.argv[1], int(sys.argv[2])
timeout = 60 if torch.__version__ < "2.10" else 12  # of the start as well

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        if batch_idx == 3 and self.trainer.global_rank == who:
            os.kill(os.getpid(), getattr(signal, what))
        return self.net(batch).mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(500, 3))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def main():
    if what == "SIGTERM" and os.environ.get("LOCAL_RANK") == str(who):
        os.killpg(0, signal.SIGTERM)  # the other rank waits for this one to join
    trainer = build_trainer(max_epochs=1, accelerator="cpu", devices=2, threads=1, timeout=timeout)
    print("process", os.getpid(), file=sys.stderr, flush=True)
    try:
        trainer.fit(Module())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)

if __name__ == "__main__":
    processes.follow_parent()
    with stopped_by_signals("go on", leader=processes.leader):
        main()
"""

CASES = {
    ("SIGKILL", 1): (2, "rank 1 (process N) was killed (SIGKILL), as happens where memory is"),
    ("SIGSTOP", 0): (-9, "rank 0 (process N) is stopped (SIGSTOP); the same command continues"),
    ("SIGTERM", 1): (143, "stopped by SIGTERM; go on"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="what becomes of processes is read in /proc")
def test_a_lost_rank_ends_all(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    runs = {
        (what, who): subprocess.Popen(
            [sys.executable, "-W", "ignore", script, what, str(who)],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for what, who in CASES
    }
    ended = {case: (run.communicate(timeout=300)[1], run.returncode) for case, run in runs.items()}
    ranks: list[int] = []
    for case, (said, returncode) in ended.items():
        status, sentence = CASES[case]
        assert returncode == status, said
        ranks += [int(line.split()[1]) for line in said.splitlines() if line.startswith("process")]
        for number in ranks:
            said = said.replace(str(number), "N")
        assert sentence in said
        assert "Traceback" not in said
    assert len(ranks) == 2 * len(CASES)
    deadline = time.monotonic() + 5  # for the system to end what it has killed
    while (left := [n for n in ranks if Path(f"/proc/{n}").exists()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert left == []


def test_a_port_in_use_is_no_lost_rank(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = subprocess.run(
            [sys.executable, "-W", "ignore", script, "none", "-1"],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "MASTER_PORT": port},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert run.returncode == 2
    assert f"port {port}, at which the ranks were to meet, is in use" in run.stderr
    assert "lost" not in run.stderr


@pytest.mark.parametrize(
    ("command", "signum", "said"),
    [
        (["sleep", "60"], signal.SIGSTOP, "is stopped (SIGSTOP)"),
        (["sleep", "60"], signal.SIGKILL, "was killed (SIGKILL)"),
        (["sh", "-c", "exit 7"], 0, "ended with status 7; what it printed says why"),
    ],
)
def test_the_ranks_are_watched(command: list[str], signum: int, said: str) -> None:
    whole, lost = subprocess.Popen(["sleep", "60"]), subprocess.Popen(command)
    os.kill(lost.pid, signum)
    watch = RankMonitor([whole, lost], first=1, timeout=2)
    watch.training_over.set()
    watch.start()
    watch.join(20)
    assert not watch.is_alive()
    assert watch.reason is not None
    assert watch.reason.startswith(f"rank 2 (process {lost.pid}) {said}")
    assert [whole.wait(10), lost.wait(10)] == [-signal.SIGKILL, lost.poll()]
