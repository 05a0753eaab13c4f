"""Store a data set in a few large files, for object stores and network disks.

Writes tar files in the form of WebDataset, and OUT/manifest.arrow with the labels, splits, groups
and ids of the source. Videos are copied as they are, so prepare them first where that pays. Stopped
at any moment, the same command continues. What fails is listed beside the manifest.

  vclr shard /fast/ucf101 --out /mnt/ucf101_shards
  vclr shard ucf101.arrow --out /mnt/ucf101_shards --shard-size 1024
  python -m vclr_lightning.train data.manifest=/mnt/ucf101_shards/manifest.arrow
"""

from __future__ import annotations

import argparse

from vclr_lightning.commands.conversion_command import add_conversion_arguments, run_conversion
from vclr_lightning.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr shard``."""
    add_conversion_arguments(
        parser,
        out="where to write the shards",
        workers="processes for indexing a folder (default: all cores)",
    )
    parser.add_argument(
        "--shard-size",
        type=float,
        default=256,
        metavar="MB",
        help="megabytes (2^20 bytes) of videos in a shard (default: 256)",
    )


def run(args: argparse.Namespace) -> None:
    """Store the data set and print the result."""
    from vclr_lightning.data.shards import pack

    if not args.shard_size > 0:
        raise UserError(f"--shard-size {args.shard_size:g} must be more than 0 megabytes")
    size = max(1, round(args.shard_size * 2**20))
    run_conversion(
        args,
        lambda source, executor: pack(
            source, args.out, shard_size=size, workers=args.workers, executor=executor
        ),
        others="stored",
    )
