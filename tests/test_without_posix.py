"""What only POSIX systems have is taken away: importing, indexing and evaluating still work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# What other packages look up stays: these are imported before. Windows has none of the removed.
CODE = """
import os, signal, sys
import av, fsspec, hydra, matplotlib, pyarrow.parquet, pytorch_lightning, torchvision, wandb

for module in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[module] = None
for name in (
    *("fork", "forkpty", "pwrite", "pread", "preadv", "pwritev", "posix_fallocate"),
    *("sched_getaffinity", "mkfifo", "killpg", "setsid", "getuid", "geteuid", "getgid", "uname"),
    *("posix_fadvise", "sendfile", "wait3", "wait4", "fchmod", "fchown", "chown", "nice"),
    *("O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "getloadavg", "sysconf"),
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGBUS", "SIGQUIT", "SIGXCPU", "SIGSTOP"):
    delattr(signal, name)
for name in ("pthread_sigmask", "sigwait", "setitimer", "alarm", "pause", "siginterrupt"):
    delattr(signal, name)

import importlib, pkgutil
import vclr_lightning
for found in pkgutil.walk_packages(vclr_lightning.__path__, "vclr_lightning."):
    importlib.import_module(found.name)

import torch
from pathlib import Path
from vclr_lightning import cli, train
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import in_use
from vclr_lightning.loggers.csv import CSVLogger
from vclr_lightning.models import TinyBackbone

with in_use(Path("held")):
    try:
        with in_use(Path("held")):
            raise AssertionError("two hold one lock")
    except UserError as error:
        assert f"process {os.getpid()} on " in str(error), error
assert list(Path("held").iterdir()) == []
log = CSVLogger(directory="held")
log.log_metrics({"loss": 0.5}, step=0)
log.log_metrics({"loss": 0.25}, step=0)
log.sync()
assert log.path.read_text() == "step,epoch,loss\\n0,,0.25\\n"

torch.manual_seed(0)
torch.save({"state_dict": TinyBackbone(width=8).state_dict()}, "tiny.pt")
root = sys.argv[1]
assert cli.main(["index", root, "--out", "m.arrow", "--workers", "2"]) == 0
sys.argv = ["train", "stage=retrieval", "backbone=tiny", "backbone.width=8", "ckpt=tiny.pt"]
sys.argv += ["data.manifest=m.arrow", "trainer=cpu", "trainer.threads=1", "image_size=32"]
sys.argv += ["data.num_workers=0", "data.holdout=0.34", "name=windows", "stage.run.pictures=0"]
sys.exit(train.main())
"""


def test_import_index_and_evaluation_need_no_posix(video_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(video_folder)],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "R@1" in done.stdout
