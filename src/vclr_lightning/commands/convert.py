"""Take the backbone out of a checkpoint, for this package or another.

Reads checkpoints and exports of vclr_lightning, MoCo v2 checkpoints, released VCLR checkpoints and
weights files of torchvision; tensors are matched by name. OUT ending in .safetensors holds the
network's own names (a ResNet's are torchvision's); OUT ending in .pth or .pt is a plain state dict
for torch.load. Both say what network it is.

  vclr convert outputs/run/last.ckpt backbone.safetensors
  vclr convert vclr_k400.pth resnet50.pth
  vclr convert backbone.safetensors tsn.pth --names mmaction
  vclr convert backbone.safetensors tsm.pth --names mmaction-tsm
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr convert``."""
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="file to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write")
    parser.add_argument(
        "--names",
        choices=("own", "mmaction", "mmaction-tsm"),
        default="own",
        help="names to write: the network's own, or MMAction2's (default: own)",
    )
    parser.add_argument("--prefix", help="what stands before the backbone's names in CKPT")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def run(args: argparse.Namespace) -> None:
    """Write the file, and print what it holds."""
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.core.screen import show
    from vclr_lightning.models.convert_weights import convert_checkpoint

    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists; choose another name or add --overwrite")
    written = convert_checkpoint(args.checkpoint, args.out, names=args.names, prefix=args.prefix)
    show(written.table())
