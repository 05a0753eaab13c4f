"""What the commands that convert a data set, `vclr prepare` and `vclr shard`, have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.commands.scheduler_option import add_scheduler_argument, workers_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from vclr_lightning.data.manifest import Manifest
    from vclr_lightning.data.prepare import Prepared
    from vclr_lightning.data.shards import Packed


def add_conversion_arguments(parser: argparse.ArgumentParser, *, out: str, workers: str) -> None:
    """Declare source, target, workers and the share of files that may fail; with two help texts."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="folder of videos, as `vclr index` takes it without options, or a manifest",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=out)
    parser.add_argument(
        "--root", type=Path, help="folder of a manifest's videos, where it has moved"
    )
    parser.add_argument("--workers", type=int, metavar="N", help=workers)
    add_scheduler_argument(parser)
    parser.add_argument(
        "--max-failed",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="end with status 2 where more than this share of the files fails (default: 0.1)",
    )


def run_conversion(
    args: argparse.Namespace,
    convert: Callable[[Path | Manifest, Executor | None], Prepared | Packed],
    *,
    others: str,
) -> None:
    """Convert the source and print the result.

    Args:
        args: with what :func:`add_conversion_arguments` declares.
        convert: converts the source, by an executor if one is given.
        others: participle for the files that did not fail.

    Raises:
        UserError: arguments are out of range or contradict each other, or too many files failed.
    """
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.core.overrides import shell_override
    from vclr_lightning.core.screen import show
    from vclr_lightning.data.manifest import Manifest

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers} must be at least 1")
    if not 0 <= args.max_failed <= 1:
        raise UserError(f"--max-failed {args.max_failed:g} must be a share, 0 to 1")
    if args.root is not None and args.source.is_dir():
        raise UserError("--root belongs to a manifest; a folder of videos is its own root")
    source = args.source if args.root is None else Manifest.load(args.source, args.root)
    with workers_of(args) as executor:
        result = convert(source, executor)
    override = shell_override("data.manifest", result.manifest.file)
    show(result.table(), *result.notices(), f"train with: {override}")
    failed = len(result.failed)
    files = failed + result.done
    if failed > args.max_failed * files:
        raise UserError(
            f"{failed:,} of {files:,} files failed, more than --max-failed "
            f"{args.max_failed:g} allows; the others are {others}"
        )
