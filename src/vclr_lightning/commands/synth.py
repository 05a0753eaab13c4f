"""Make labelled synthetic videos, whose class shows only in what happens over time."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr synth``."""
    parser.add_argument("root", type=Path, metavar="FOLDER", help="where to write the set")
    parser.add_argument("--train", type=int, default=100, help="training videos of each action")
    parser.add_argument("--val", type=int, default=50, help="held-out videos of each action")
    parser.add_argument("--untrimmed", type=int, default=16, help="videos with known action spans")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other videos")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")


def run(args: argparse.Namespace) -> None:
    """Write the set, and print where its labelled videos are."""
    from vclr_lightning.core.overrides import shell_override
    from vclr_lightning.data.synthetic import generate

    videos = generate(
        args.root,
        train=args.train,
        val=args.val,
        untrimmed=args.untrimmed,
        size=args.size,
        seed=args.seed,
        workers=args.workers,
        progress=True,
    )
    root = shell_override("data.root", videos)
    print(f"train on them with: python -m vclr_lightning.train +experiment=demo {root}")
