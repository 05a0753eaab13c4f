"""What ``python -m vclr_lightning.train --help`` prints; Hydra's own help would take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

TEXT = """\
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
  python -m vclr_lightning.train ... --cfg job      print what a command comes to
The same command again continues a run that was stopped or killed.

values most often given:
  data.root=PATH             folder of videos       data.train_list=, data.val_list=, data.manifest=
  init=PATH|none             weights to start from: MoCo v2, torchvision, released VCLR, our own
  ckpt=PATH|none             weights to measure, of a stage that trains nothing
  name=NAME                  of the run, which is in outputs/STAGE/NAME
  batch_size=N               videos per step, over all devices; the learning rate follows
  epochs=N  seed=N  num_segments=N  image_size=PX  queue_size=N
  trainer.devices=N          processes; trainer.precision=16-mixed|bf16-mixed
  data.num_workers=N         loading processes per device
  objective.weights.order=0  leave a loss out
  monitor=MEASURE            logged measure that chooses best.ckpt
  resume=auto|never          continue what is in the run's folder, or set it aside
  logger=wandb logger.wandb.offline=true

groups, GROUP=OPTION (experiment, preset, profiler, suite are added: +GROUP=OPTION):
{groups}
options:
  --cfg job             print the configuration        --multirun, -m   sweep over values a,b,c
  --config-dir PATH     options of your own            --hydra-help     Hydra's own options
"""


def usage() -> str:
    """Return the help text, with the options that there are."""
    return TEXT.format(groups="".join(f"  {n:<11} {', '.join(o)}\n" for n, o in _groups()))


def _groups() -> Iterator[tuple[str, list[str]]]:
    for group in sorted(resources.files("vclr_lightning.conf").iterdir(), key=lambda g: g.name):
        if group.is_dir():
            names = [f.name for f in group.iterdir()]
            options = sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml"))
            if options:
                yield group.name, options
