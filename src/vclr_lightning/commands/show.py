"""Show what a manifest holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

_LISTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr show``."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="file of `vclr index`")
    parser.add_argument("--root", type=Path, help="folder of the videos, where it has moved")
    parser.add_argument("--split", metavar="NAME", help="count the videos of this split alone")
    parser.add_argument(
        "--check", action="store_true", help="compare every file's size and time with the manifest"
    )


def run(args: argparse.Namespace) -> None:
    """Print the summary, and with ``--check`` the files that have changed."""
    from vclr_lightning.core.screen import show
    from vclr_lightning.data.manifest import Manifest, changed_files, summarise

    manifest = Manifest.load(args.manifest, args.root, check_root=args.check)
    if args.split is not None:
        manifest = manifest.split(args.split)
    show(summarise(manifest).table(args.manifest.name), f"videos in {quote(str(manifest.root))}")
    if args.check:
        changed = changed_files(manifest)
        files = summarise(manifest).files
        show(f"{len(changed)} of {files} files have changed since they were indexed")
        show(*(f"  {what}: {path}" for path, what in list(changed.items())[:_LISTED]))
        if len(changed) > _LISTED:
            show(f"  and {len(changed) - _LISTED} more")
