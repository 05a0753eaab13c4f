"""``python -m vclr_lightning.train``: run what the configuration and the command line describe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

# HYDRA_FULL_ERROR is changed below; commands that a run starts read the user's choice here.
_CHOICE = "VCLR_TRACEBACKS"
_TRACEBACKS = os.environ.get(_CHOICE, os.environ.get("HYDRA_FULL_ERROR")) == "1"
# The user's own folders of options, for the commands that a sweep or an evaluation starts.
_SEARCH_PATH = "VCLR_SEARCH_PATH"

_USAGE = """\
Pretrain a video network without labels (VCLR).

usage: python -m vclr_lightning.train [KEY=VALUE ...] [GROUP=OPTION ...] [options]

common commands:
  python -m vclr_lightning.train data.root=/videos backbone=resnet18 batch_size=64 epochs=100
  python -m vclr_lightning.train +experiment=k400 data.root=/k400 init=/moco_v2_200ep.pth.tar
  python -m vclr_lightning.train +experiment=ucf101 data.root=/ucf101 data.annotations=/lists
  python -m vclr_lightning.train -m num_segments=1,2,3,5,7 +experiment=k400 ...
  python -m vclr_lightning.train stage=evaluate ckpt=/k400/last.ckpt data.root=/videos
  python -m vclr_lightning.train stage=finetune init=/k400/last.ckpt data.root=/videos
  python -m vclr_lightning.train +suite=paper ckpt=/k400/last.ckpt data.roots.ucf101=...
  python -m vclr_lightning.train ... debug=fast     a few batches, to see that all works
  python -m vclr_lightning.train ... --cfg job      print the configuration of a command
The same command again continues a run that was stopped or killed.

most used values:
  data.root=PATH             folder of videos       data.train_list=, data.val_list=, data.manifest=
  init=PATH|none             initial weights: MoCo v2, torchvision, released VCLR, our own
  ckpt=PATH|none             weights to evaluate, of a stage that trains nothing
  name=NAME                  of the run, which is in outputs/STAGE/NAME
  batch_size=N               videos per step, over all devices; the learning rate follows
  epochs=N  seed=N  num_segments=N  image_size=PX  queue_size=N
  trainer.devices=N          processes; trainer.precision=16-mixed|bf16-mixed
  data.num_workers=N         loading processes per device
  objective.weights.order=0  leave a loss out
  monitor=METRIC             logged metric that chooses best.ckpt
  resume=auto|never          continue what is in the run's folder, or move it aside
  logger=wandb logger.wandb.offline=true

groups, GROUP=OPTION (experiment, preset, profiler, suite, sweep are added: +GROUP=OPTION):
{groups}
options:
  --cfg job             print the configuration        --multirun, -m   sweep over values a,b,c
  --config-dir PATH     your own options               --hydra-help     Hydra's own options
"""


def main() -> None:
    """Run; HYDRA_FULL_ERROR=1 shows tracebacks, as everywhere in Hydra."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_USAGE.format(groups=_groups()), end="")  # Hydra's own help takes seconds
        return
    from vclr_lightning.core import processes
    from vclr_lightning.core.launcher import check_rank_variables
    from vclr_lightning.core.stopping import stopped_by_signals

    with _errors_reported():
        check_rank_variables(os.environ)
    processes.follow_parent()
    with stopped_by_signals("the same command continues", leader=processes.leader):
        _run_hydra()


def _groups() -> str:
    """Return the configuration groups with their options, one a line."""
    from importlib import resources

    lines = []
    for group in sorted(resources.files("vclr_lightning.conf").iterdir(), key=lambda g: g.name):
        files = group.iterdir() if group.is_dir() else ()
        names = sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))
        if names:
            lines.append(f"  {group.name:<11} {', '.join(names)}\n")
    return "".join(lines)


def _run_hydra() -> None:
    import logging

    import hydra

    from vclr_lightning.app.sweep import check_sweep, sweep_shown
    from vclr_lightning.core.overrides import quote_overrides

    logging.raiseExceptions = False  # a full disk that refuses a line of the log is no traceback
    os.environ[_CHOICE] = str(int(_TRACEBACKS))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    with _errors_reported(), _failure_sent(), sweep_shown(tracebacks=_TRACEBACKS):
        sys.argv[1:] = _with_search_path(quote_overrides(sys.argv[1:]))
        check_sweep(sys.argv[1:])
        hydra.main(
            version_base="1.3", config_path="pkg://vclr_lightning.conf", config_name="config"
        )(_task)()


def _with_search_path(words: list[str]) -> list[str]:
    """Add the folders of options of the command that started this one, unless it repeats them."""
    own = ("--config-dir", "-cd", "hydra.searchpath=")
    if _SEARCH_PATH not in os.environ or any(word.startswith(own) for word in words):
        return words
    return [*words, f"hydra.searchpath={os.environ[_SEARCH_PATH]}"]


@contextmanager
def _search_path_shared() -> Iterator[None]:
    """Let commands that the block starts find the user's options."""
    from hydra.core.hydra_config import HydraConfig

    from vclr_lightning.core.overrides import hydra_value

    before = os.environ.pop(_SEARCH_PATH, None)
    sources = HydraConfig.get().runtime.config_sources
    given = ("command-line", "hydra.searchpath in command-line")
    folders = [f"{one.schema}://{one.path}" for one in sources if one.provider in given]
    if folders:
        os.environ[_SEARCH_PATH] = hydra_value(folders)
    try:
        yield
    finally:
        os.environ.pop(_SEARCH_PATH, None)
        if before is not None:
            os.environ[_SEARCH_PATH] = before


def _task(cfg: DictConfig) -> float | None:
    from vclr_lightning.app.sweep import in_sweep, needs_command, run_job

    # The failure of a sweep's job is recorded, and the sweep continues with the next.
    errors = nullcontext() if in_sweep() else _errors_reported()
    with errors, _failure_sent(), _search_path_shared():
        if needs_command(cfg):
            return run_job(cfg).get("best")
        from vclr_lightning.app.run import run

        return run(cfg).get("best")


@contextmanager
def _errors_reported() -> Iterator[None]:
    """End with one sentence and status 2 for a user's mistake, status 1 for a fault of code."""
    try:
        yield
    except Exception as error:
        from vclr_lightning.app.explain import report_error

        if _TRACEBACKS or (status := report_error(error)) is None:
            raise
        sys.exit(status)


@contextmanager
def _failure_sent() -> Iterator[None]:
    """Send the reason of a failure to the sweep or evaluation that started this command, if any."""
    try:
        yield
    except Exception as error:
        from vclr_lightning.app.explain import explain
        from vclr_lightning.core import processes

        processes.report_failure(explain(error) or f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main()
