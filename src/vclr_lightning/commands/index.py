"""List a folder of videos in a manifest, which training reads.

ROOT holds the videos: a folder per class, or none; or else list files, or a data set's official
files, name those to take. Stopped at any moment, the same command continues; files that have not
changed since an earlier run are not opened again. What cannot be used is listed beside the
manifest.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from vclr_lightning.commands.scheduler_option import add_scheduler_argument, workers_of

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.data.indexing import Indexed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr index``."""
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the videos")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the manifest to write (default: ./NAME.arrow)"
    )
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="SPLIT=FILE",
        dest="lists",
        help="list file of a split, a line `path [[frames] label]` per video; repeatable",
    )
    parser.add_argument(
        "--kinetics",
        action="extend",
        nargs="+",
        default=[],
        type=Path,
        metavar="CSV",
        help="official Kinetics CSV files; the videos may lie in class folders or flat",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="take videos, labels, splits and groups from a data set's official files: ucf101, "
        "hmdb51, sthv2, activitynet, kinetics400, kinetics600, hacs, mmaction2",
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="DIR", help="folder of the data set's official files"
    )
    parser.add_argument(
        "--split-number", type=int, default=1, metavar="N", help="of the data set's official splits"
    )
    parser.add_argument(
        "--view",
        metavar="NAME",
        help="what rows are: clips, videos, localization (activitynet); clips, segments, videos, "
        "localization (hacs); plain, offset (mmaction2)",
    )
    parser.add_argument(
        "--classes",
        choices=("folder", "none"),
        default="folder",
        help="where labels come from, beside lists: the folders' names, or nowhere",
    )
    parser.add_argument(
        "--split", default="train", metavar="NAME", help="split of a folder without such folders"
    )
    parser.add_argument(
        "--group-regex",
        metavar="RE",
        help="searched in each path; videos with equal matches are cut from one source",
    )
    parser.add_argument(
        "--frames",
        metavar="TEMPLATE",
        help="videos are folders of extracted frames, such as img_{:05d}.jpg",
    )
    parser.add_argument(
        "--decode",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="decode every video to its end: slow, finds damaged ones",
    )
    parser.add_argument(
        "--max-damaged",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of a video's frames that may be damaged before it is rejected (default: 0.1)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    add_scheduler_argument(parser)
    parser.add_argument(
        "--fresh", action="store_true", help="open every file, whatever an earlier run found"
    )


def run(args: argparse.Namespace) -> None:
    """Index the videos and print the result."""
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.core.screen import show
    from vclr_lightning.data.indexing import ListingSource, index_videos
    from vclr_lightning.data.manifest.manifest_file import is_manifest
    from vclr_lightning.data.manifest.summary import leaks

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers} must be at least 1")
    if args.out is not None and args.out.exists() and not is_manifest(args.out):
        raise UserError(f"--out {args.out} exists and is no manifest; give another file")
    source = ListingSource(
        root=args.root.absolute(),
        lists=_lists(args.lists),
        kinetics=args.kinetics,
        dataset=args.dataset,
        annotations=None if args.annotations is None else args.annotations.absolute(),
        split_number=args.split_number,
        view=args.view,
        with_classes=args.classes == "folder",
        split=args.split,
        group_regex=args.group_regex,
        frames=args.frames,
    )
    with workers_of(args) as executor:
        indexed = index_videos(
            source.listing(),
            root=source.root,
            out=args.out or Path(f"{source.root.resolve().name or 'videos'}.arrow"),
            frames=args.frames,
            decode=args.decode,
            max_damaged=args.max_damaged,
            workers=args.workers,
            executor=executor,
            fresh=args.fresh,
            source=source.describe(),
        )
    show(_table(indexed), f"wrote {quote(str(indexed.manifest.file))}")
    show(*indexed.notices(), *leaks(indexed.manifest))


def _lists(arguments: list[str]) -> dict[str, list[Path]]:
    from vclr_lightning.core.errors import UserError

    lists = defaultdict(list)
    for argument in arguments:
        split, equals, file = argument.partition("=")
        if not (split and equals and file):
            raise UserError(f"--list {argument!r} must be SPLIT=FILE, such as train=train.txt")
        lists[split].append(Path(file))
    return dict(lists)


def _table(indexed: Indexed) -> Table:
    table = indexed.summary.table(indexed.manifest.file.name)
    table.add_row("opened now", f"{indexed.probed:,}")
    table.add_row("rejected", f"{len(indexed.rejected):,}")
    if indexed.left_out:
        table.add_row("left out", f"{indexed.left_out.total():,}")
    if indexed.unlisted:
        table.add_row("in no list", f"{indexed.unlisted:,} videos of the folder")
    if indexed.others:
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in indexed.others.most_common(5))
        table.add_row("other files", f"{indexed.others.total():,} ({kinds})")
    return table
