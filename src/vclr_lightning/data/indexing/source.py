"""Where the videos of a manifest come from: folder, list files or Kinetics CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.entries import Listing
from vclr_lightning.data.indexing.files import Found, find_videos
from vclr_lightning.data.indexing.folder import listing_of_folder
from vclr_lightning.data.indexing.groups import group_pattern, with_groups
from vclr_lightning.data.indexing.kinetics import listing_of_kinetics, read_kinetics
from vclr_lightning.data.indexing.lists import listing_of_lists
from vclr_lightning.data.indexing.progress import progress_bar
from vclr_lightning.data.readers.image_folder import frame_pattern


@dataclass(frozen=True, kw_only=True)
class Source:
    """Names videos, without opening them.

    Attributes:
        root: the folder that all videos are below.
        lists: list files by split; without them and ``kinetics``, all videos of the folder.
        kinetics: official CSV files.
        with_classes: whether labels are wanted; of a folder, its subfolders.
        split: of the videos of a folder that is not divided into splits.
        group_regex: what to search in a path to find the video's group.
        frames: template of extracted frames; each folder of them is a video.
    """

    root: Path
    lists: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    kinetics: Sequence[Path] = ()
    with_classes: bool = True
    split: str = "train"
    group_regex: str | None = None
    frames: str | None = None

    def __post_init__(self) -> None:
        if self.lists and self.kinetics:
            raise UserError("give either list files or Kinetics CSV files, not both")
        if self.frames is not None:
            frame_pattern(self.frames)
        if self.group_regex is not None:
            group_pattern(self.group_regex)
        if not self.root.is_dir():
            what = "is no folder" if self.root.exists() else "does not exist"
            raise UserError(f"{self.root} {what}; give the folder that the videos are in")

    def listing(self, *, show: bool = True) -> Listing:
        """Return the videos.

        Raises:
            UserError: there are none, or a list cannot be read.
        """
        if self.lists:
            listing = listing_of_lists(self.lists, self.root, with_classes=self.with_classes)
        elif self.kinetics:
            clips = {file: read_kinetics(file) for file in self.kinetics}
            found = self._find(show)
            listing = listing_of_kinetics(clips, found, with_classes=self.with_classes)
        else:
            found = self._find(show)
            listing = listing_of_folder(found, with_classes=self.with_classes, split=self.split)
        if not listing.entries:
            first = listing.rejected[0]
            raise UserError(
                f"none of the {len(listing.rejected):,} listed videos is in {self.root}, for "
                f"example {first.path}: {first.reason}"
            )
        listing.entries = with_groups(listing.entries, self.group_regex)
        return listing

    def _find(self, show: bool) -> Found:
        with progress_bar("looking for videos", show=show) as update:
            found = find_videos(
                self.root, frames=self.frames, progress=lambda number: update(number, "")
            )
        if found.paths:
            return found
        wanted = self.frames or ".mp4, .avi, .mkv, .webm and the like"
        seen = ", ".join(f"{n} {suffix}" for suffix, n in found.others.most_common(5))
        raise UserError(
            f"there are no videos in {self.root}: looked for {wanted}; found {seen or 'no files'}"
        )

    def describe(self) -> str:
        """Return how the videos are listed, in one line.

        Example:
            >>> Source(root=Path("/"), kinetics=[Path("k400_train.csv")]).describe()
            'Kinetics k400_train.csv'
        """
        if self.lists:
            pairs = (f"{split}={file}" for split, files in self.lists.items() for file in files)
            return f"lists {', '.join(pairs)}"
        if self.kinetics:
            return f"Kinetics {', '.join(map(str, self.kinetics))}"
        return "folder"
