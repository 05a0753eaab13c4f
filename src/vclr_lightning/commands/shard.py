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
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr shard``."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder of videos, as `vclr index` takes it without options, or a manifest",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where to write the shards"
    )
    parser.add_argument(
        "--root", type=Path, help="folder of a manifest's videos, where it has moved"
    )
    parser.add_argument(
        "--shard-size",
        type=float,
        default=256,
        metavar="MB",
        help="megabytes (2^20 bytes) of videos in a shard (default: 256)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes for indexing a folder (default: all cores)",
    )
    parser.add_argument(
        "--max-failed",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="end with status 2 where more than this share of the files fails (default: 0.1)",
    )


def run(args: argparse.Namespace) -> None:
    """Store the data set, and print what came of it."""
    from rich.console import Console

    from vclr_lightning.core.errors import UserError
    from vclr_lightning.data.manifest import Manifest
    from vclr_lightning.data.shards import pack

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers} must be at least 1")
    if not 0 <= args.max_failed <= 1:
        raise UserError(f"--max-failed {args.max_failed:g} must be a share, 0 to 1")
    if not args.shard_size > 0:
        raise UserError(f"--shard-size {args.shard_size:g} must be more than 0 megabytes")
    if args.root is not None and args.source.is_dir():
        raise UserError("--root belongs to a manifest; a folder of videos is its own root")
    source = args.source if args.root is None else Manifest.load(args.source, args.root)
    size = max(1, round(args.shard_size * 2**20))
    try:
        packed = pack(source, args.out, shard_size=size, workers=args.workers)
    except KeyboardInterrupt:
        Console(stderr=True).print("the same command continues from here")
        raise
    console = Console()
    console.print(packed.table())
    for line in packed.notices():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    file = packed.manifest.file
    console.print(f"train with: data.manifest={file}", highlight=False, soft_wrap=True)
    if packed.failed_share > args.max_failed:
        raise UserError(
            f"{len(packed.failed):,} of {len(packed.failed) + packed.files:,} files failed, more "
            f"than --max-failed {args.max_failed:g} allows; the others are stored"
        )
