"""Take the backbone out of a checkpoint, for this package or another.

Reads checkpoints and exports of vclr_lightning, MoCo v2, the released VCLR, TSN and TSM of
MMAction2, and weights files of torchvision and timm; tensors are matched by name. OUT ending in
.safetensors, .pth or .pt holds weights, OUT ending in .onnx a program. Nothing is written unless
the other side computes the same features. OUT.md is a model card.

  vclr convert outputs/run/last.ckpt backbone.safetensors
  vclr convert vclr_k400.pth resnet50.pth
  vclr convert backbone.safetensors tsn.pth --names mmaction
  vclr convert tsm_r50_kinetics400.pth tsm.safetensors
  vclr convert outputs/run/last.ckpt backbone.onnx --results outputs/linear_probe/run/result.json
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
        choices=("own", "torchvision", "timm", "moco", "released", "mmaction", "mmaction-tsm"),
        default="own",
        help="whose names to write, and whose network has to agree (default: own)",
    )
    parser.add_argument("--prefix", help="what stands before the backbone's names in CKPT")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="result.json of evaluations, for the model card",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def run(args: argparse.Namespace) -> None:
    """Write the file, and print what it holds."""
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.core.screen import show
    from vclr_lightning.models.convert_weights import convert_checkpoint

    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists; choose another name or add --overwrite")
    written = convert_checkpoint(
        args.checkpoint, args.out, names=args.names, prefix=args.prefix, results=args.results
    )
    show(written.table())
