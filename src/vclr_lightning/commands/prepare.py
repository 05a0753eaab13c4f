"""Re-encode a data set once, so that training reads it at a fraction of the cost.

Writes each video anew, upright, without sound and with keyframes close to each other, and the
manifest of the result, OUT/manifest.arrow, with the labels, splits, groups and ids of the source.
Frames and their times stay the same. Stopped at any moment, the same command continues; videos
that have changed are done again. What fails is listed beside the manifest.

  vclr prepare /data/ucf101 --out /fast/ucf101
  vclr prepare ucf101.arrow --out /fast/ucf101
  python -m vclr_lightning.train data.manifest=/fast/ucf101/manifest.arrow
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr prepare``."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder of videos, as `vclr index` takes it without options, or a manifest",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where to write; the tree is kept"
    )
    parser.add_argument(
        "--root", type=Path, help="folder of a manifest's videos, where it has moved"
    )
    parser.add_argument(
        "--short-edge",
        type=int,
        default=256,
        metavar="PX",
        help="reduce the shorter side to this; smaller videos keep their size (default: 256)",
    )
    parser.add_argument(
        "--keyframe-every",
        type=int,
        default=8,
        metavar="N",
        help="frames from one keyframe to the next (default: 8)",
    )
    parser.add_argument(
        "--intra", action="store_true", help="keyframes alone: larger, cheapest to read"
    )
    parser.add_argument(
        "--crf",
        type=int,
        default=18,
        metavar="N",
        help="quality of H.264: 0 lossless, less is better and larger (default: 18)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    parser.add_argument(
        "--max-failed",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="end with status 2 where more than this share of the files fails (default: 0.1)",
    )


def run(args: argparse.Namespace) -> None:
    """Prepare the data set, and print what came of it."""
    from rich.console import Console

    from vclr_lightning.core.errors import UserError
    from vclr_lightning.data.manifest import Manifest
    from vclr_lightning.data.prepare import Recipe, prepare

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers} must be at least 1")
    if not 0 <= args.max_failed <= 1:
        raise UserError(f"--max-failed {args.max_failed:g} must be a share, 0 to 1")
    if args.root is not None and args.source.is_dir():
        raise UserError("--root belongs to a manifest; a folder of videos is its own root")
    recipe = Recipe(
        short_edge=args.short_edge,
        keyframe_every=1 if args.intra else args.keyframe_every,
        crf=args.crf,
    )
    source = args.source if args.root is None else Manifest.load(args.source, args.root)
    try:
        prepared = prepare(source, args.out, recipe, workers=args.workers)
    except KeyboardInterrupt:
        Console(stderr=True).print("the same command continues from here")
        raise
    console = Console()
    console.print(prepared.table())
    for line in prepared.notices():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    file = prepared.manifest.file
    console.print(f"train with: data.manifest={file}", highlight=False, soft_wrap=True)
    if prepared.failed_share > args.max_failed:
        raise UserError(
            f"{len(prepared.failed):,} of {len(prepared.failed) + len(prepared.made):,} files "
            f"failed, more than --max-failed {args.max_failed:g} allows; the others are prepared"
        )
