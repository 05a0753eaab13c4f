"""Converting a data set into a folder of its own: what preparing and sharding have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import clear_leftovers
from vclr_lightning.core.locks import locked
from vclr_lightning.core.reading import parse_with_checksum, read_text, write_record
from vclr_lightning.data.indexing.indexer import index_videos
from vclr_lightning.data.indexing.source import ListingSource
from vclr_lightning.data.jobs import Rejected
from vclr_lightning.data.manifest import Manifest


@contextmanager
def converting(
    source: str | Path | Manifest,
    out: Path,
    settings: Mapping[str, object],
    *,
    mark: str,
    workers: int,
    executor: Executor | None,
    show: bool,
) -> Iterator[tuple[Manifest, Sequence[Rejected]]]:
    """Claim and lock the folder of the result; yield the source's manifest and unusable files.

    Args:
        source: a folder of videos, which is indexed first; a manifest's file; or a manifest.
        out: the new folder, absolute, or one that the same call has begun.
        settings: what the result depends on besides the source.
        mark: name of a subfolder of ``out`` for settings and the index of a folder.
        workers: processes for indexing.
        executor: indexes instead of these.
        show: whether to show progress.

    Raises:
        UserError: there is no such source, its videos are not files, ``out`` holds something else
            or lies in the source, or cannot be written to.
    """
    if not isinstance(source, Manifest):
        place = Path(source).expanduser()
        if not place.exists():
            raise UserError(f"{source} does not exist; give a folder of videos or a manifest")
        source = place.absolute() if place.is_dir() else Manifest.load(place)
    if isinstance(source, Manifest) and source.info.frames is not None:
        raise UserError(
            f"{source.file} lists folders of extracted frames, and this is for video files; "
            "training reads frames as they are"
        )
    if isinstance(source, Manifest) and source.info.shards:
        raise UserError(f"{source.file} lists videos in shards; give the manifest of their files")
    _claim(out, source if isinstance(source, Path) else source.root, settings, mark=mark)
    with locked(out / "manifest.arrow", show=show):
        if isinstance(source, Manifest):
            yield source, ()
            return
        indexed = index_videos(
            ListingSource(root=source).listing(show=show),
            root=source,
            out=out / mark / "source.arrow",
            workers=workers,
            executor=executor,
            source="folder",
            show=show,
        )
        yield indexed.manifest, indexed.rejected


def _claim(out: Path, root: Path, settings: Mapping[str, object], *, mark: str) -> None:
    """Create the folder, or check that it holds the result of the same source and settings."""
    inner, outer = out.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(
            f"--out {out} and the videos in {root} must not lie in one another; give another folder"
        )
    file = out / mark / "settings.json"
    clear_leftovers(file.parent)
    settings = {"root": str(outer), **settings}
    try:
        known = parse_with_checksum(read_text(file), file) if file.is_file() else None
    except UserError as error:
        raise UserError(
            f"{error}, so that it is not known how the videos in {out} were made; delete that "
            "folder, or give another as --out"
        ) from error
    if known is None:
        # A first run that was killed at once leaves its own subfolder.
        if out.exists() and (not out.is_dir() or {e.name for e in out.iterdir()} - {mark}):
            raise UserError(f"{out} holds something else; give a new or empty folder as --out")
        write_record(file, settings)
        return
    differing = sorted(key for key in known if settings.get(key) != known[key])
    if differing:
        held = ", ".join(f"{key} {known[key]}" for key in differing)
        raise UserError(
            f"{out} holds videos prepared otherwise ({held}); give another folder as --out, or the "
            "same settings to go on"
        )
