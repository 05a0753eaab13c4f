"""What commands that make another form of a data set have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import typed

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.data.jobs.rejects import Rejected
    from vclr_lightning.data.manifest import Manifest


class Copied(Protocol):
    """What came of it; ``done`` counts files."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def done(self) -> int: ...

    @property
    def failed(self) -> Sequence[Rejected]: ...

    def table(self) -> Table: ...

    def notices(self) -> list[str]: ...


def add_source(parser: argparse.ArgumentParser, *, out: str, workers: str) -> None:
    """Declare what is copied, and where to.

    Args:
        parser: of the command.
        out: help on the folder of the result.
        workers: help on the processes.
    """
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
    parser.add_argument(
        "--max-failed",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="end with status 2 where more than this share of the files fails (default: 0.1)",
    )


def source_of(args: argparse.Namespace) -> Path | Manifest:
    """Return what is copied.

    Raises:
        UserError: the arguments are out of range, or contradict each other.
    """
    from vclr_lightning.data.manifest import Manifest

    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers} must be at least 1")
    if not 0 <= args.max_failed <= 1:
        raise UserError(f"--max-failed {args.max_failed:g} must be a share, 0 to 1")
    if args.root is not None and args.source.is_dir():
        raise UserError("--root belongs to a manifest; a folder of videos is its own root")
    source: Path = args.source
    return source if args.root is None else Manifest.load(source, args.root)


def copy_and_tell(copy: Callable[[], Copied], *, max_failed: float, are_done: str) -> None:
    """Copy, and print what came of it.

    Args:
        copy: does it.
        max_failed: share of the files that may fail.
        are_done: what the others then are, for a reader.

    Raises:
        UserError: more files failed.
    """
    from vclr_lightning.core.screen import show

    copied = copy()
    override = typed("data.manifest", copied.manifest.file)
    show(copied.table(), *copied.notices(), f"train with: {override}")
    failed = len(copied.failed)
    there = failed + copied.done
    if failed > max_failed * there:
        raise UserError(
            f"{failed:,} of {there:,} files failed, more than --max-failed "
            f"{max_failed:g} allows; the others are {are_done}"
        )
