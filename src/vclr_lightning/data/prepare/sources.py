"""The videos to prepare: those of a folder, or of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.entries import Rejected
from vclr_lightning.data.indexing.indexer import index_videos
from vclr_lightning.data.indexing.source import Source
from vclr_lightning.data.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Videos:
    """Videos of a folder that may not have been indexed yet.

    Attributes:
        root: their folder.
        manifest: what is in it, where that is known.
    """

    root: Path
    manifest: Manifest | None

    def indexed(
        self, file: Path, *, workers: int, show: bool
    ) -> tuple[Manifest, Sequence[Rejected]]:
        """Return the manifest and what could not be used; index into ``file`` where there is none.

        Args:
            file: where the index is kept.
            workers: processes.
            show: whether to show progress.

        Raises:
            UserError: the folder holds no video that can be used.
        """
        if self.manifest is not None:
            return self.manifest, ()
        indexed = index_videos(
            Source(root=self.root).listing(show=show),
            root=self.root,
            out=file,
            workers=workers,
            source="folder",
            show=show,
        )
        return indexed.manifest, indexed.rejected


def videos_of(source: str | Path | Manifest) -> Videos:
    """Return what ``source`` names: a folder of videos, a manifest's file, or a manifest.

    Raises:
        UserError: there is no such thing, or the videos are no files.
    """
    if not isinstance(source, Manifest):
        place = Path(source).expanduser()
        if place.is_dir():
            return Videos(place.absolute(), None)
        if not place.exists():
            raise UserError(f"{source} does not exist; give a folder of videos or a manifest")
        source = Manifest.load(place)
    if source.info.frames is not None:
        raise UserError(
            f"{source.file} lists folders of extracted frames, and this is for video files; "
            "training reads frames as they are"
        )
    if source.info.shards:
        raise UserError(f"{source.file} lists videos in shards; give the manifest of their files")
    return Videos(source.root, source)
