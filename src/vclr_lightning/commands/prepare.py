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

from vclr_lightning.commands.conversion_command import add_conversion_arguments, run_conversion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr prepare``."""
    add_conversion_arguments(
        parser,
        out="where to write; the tree is kept",
        workers="processes (default: all cores)",
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


def run(args: argparse.Namespace) -> None:
    """Prepare the data set and print the result."""
    from vclr_lightning.data.prepare import Recipe, prepare

    recipe = Recipe(
        short_edge=args.short_edge,
        keyframe_every=1 if args.intra else args.keyframe_every,
        crf=args.crf,
    )
    run_conversion(
        args,
        lambda source, executor: prepare(
            source, args.out, recipe, workers=args.workers, executor=executor
        ),
        others="prepared",
    )
