"""Examine the videos of a data set before training on them.

Decodes every video in part and writes a page, OUT/doctor.html, with doctor.json and videos.csv:
broken and truncated files, videos too short for S segments, copies of one another (equal files, and
re-encoded ones), groups and copies that several splits share, odd and variable frame rates, grey,
black and static videos, sizes, durations, classes, and what `vclr prepare` would gain.

Stopped at any moment, the same command continues; files that have not changed since an earlier
call are not opened again. Ends with status 1 where something was found that hurts: files that
cannot be read, copies or groups in several splits, copies of different classes; otherwise with 0.

  vclr doctor /data/ucf101
  vclr doctor ucf101.arrow --out checks/ucf101
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vclr_lightning.commands.scheduler_option import add_scheduler_argument, workers_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr doctor``."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="manifest, or folder of videos, as `vclr index` takes it without options",
    )
    parser.add_argument(
        "--root", type=Path, help="folder of a manifest's videos, where it has moved"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: ./NAME.doctor")
    parser.add_argument(
        "--segments",
        type=int,
        default=8,
        metavar="N",
        help="count the videos too short for 1 to N segments (default: 8)",
    )
    parser.add_argument(
        "--frames-per-clip", type=int, default=1, metavar="T", help="of a segment (default: 1)"
    )
    parser.add_argument(
        "--frame-stride", type=int, default=1, metavar="N", help="within a clip (default: 1)"
    )
    parser.add_argument(
        "--gain",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="re-encode up to three videos to measure what `vclr prepare` would gain",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    add_scheduler_argument(parser)
    parser.add_argument(
        "--fresh", action="store_true", help="open every file, whatever an earlier call found"
    )


def run(args: argparse.Namespace) -> int:
    """Examine the videos; return 1 where something was found that hurts."""
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.data.doctor import diagnose
    from vclr_lightning.data.doctor.doctor_page import result_of_diagnosis
    from vclr_lightning.data.manifest import Manifest
    from vclr_lightning.results import present

    for name in ("workers", "segments", "frames_per_clip", "frame_stride"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1")
    if args.root is not None and args.source.is_dir():
        raise UserError("--root belongs to a manifest; a folder of videos is its own root")
    name = args.source.resolve().stem if args.source.is_file() else args.source.resolve().name
    out = args.out or Path(f"{name or 'videos'}.doctor")
    source = args.source if args.root is None else Manifest.load(args.source, args.root)
    with workers_of(args) as executor:
        diagnosis = diagnose(
            source,
            out,
            workers=args.workers,
            executor=executor,
            fresh=args.fresh,
            measure=args.gain,
        )
    clip = (args.frames_per_clip - 1) * args.frame_stride + 1
    present(result_of_diagnosis(diagnosis, segments=args.segments, clip=clip), out)
    return int(diagnosis.hurts)
