"""The source of a manifest: a folder, lists, or a data set's official files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.indexing.listing import (
    Listing,
    group_pattern,
    listing_of_folder,
    with_groups,
)
from vclr_lightning.data.indexing.lists import listing_of_lists
from vclr_lightning.data.indexing.video_files import Found, find_videos
from vclr_lightning.data.readers.image_folder import frame_pattern

if TYPE_CHECKING:
    from vclr_lightning.data.datasets.registry import Wanted


@dataclass(frozen=True, kw_only=True)
class ListingSource:
    """A source of videos, which lists them without opening them.

    Attributes:
        root: the folder that contains all videos.
        lists: list files by split; without them and ``kinetics``, all videos of the folder.
        kinetics: official CSV files.
        dataset: name of a data set whose official files list the videos.
        annotations: the folder of these files.
        split_number: of the data set's divisions into training and test set, from 1.
        view: what rows are, for a data set that offers several kinds.
        with_classes: whether labels are wanted; of a folder, its subfolders.
        split: of the videos of a folder that is not divided into splits.
        group_regex: what to search in a path to find the video's group.
        frames: template of extracted frames; each folder of them is a video.
    """

    root: Path
    lists: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    kinetics: Sequence[Path] = ()
    dataset: str | None = None
    annotations: Path | None = None
    split_number: int = 1
    view: str | None = None
    with_classes: bool = True
    split: str = "train"
    group_regex: str | None = None
    frames: str | None = None

    def __post_init__(self) -> None:
        if bool(self.lists) + bool(self.kinetics) + (self.dataset is not None) > 1:
            raise UserError("give either list files, Kinetics CSV files or a data set, not several")
        if self.dataset is not None:
            self._wanted()
        elif self.annotations is not None:
            raise UserError("annotations are those of a data set; give its name, too")
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
        # This package and that of the data sets import parts of each other.
        from vclr_lightning.data.datasets.kinetics import read_kinetics
        from vclr_lightning.data.datasets.match_videos import match
        from vclr_lightning.data.datasets.registry import listing_of_dataset, without_classes

        clips = read_kinetics(*self.kinetics)
        found = Found() if self.lists else self._find(show)
        if self.lists:
            listing = listing_of_lists(self.lists, self.root, with_classes=self.with_classes)
        elif self.kinetics:
            listing = match(clips, found)
            listing = listing if self.with_classes else without_classes(listing)
        elif self.dataset is not None:
            with progress_bar("reading the official files", show=show):
                listing = listing_of_dataset(
                    self.dataset, self._wanted(), found, with_classes=self.with_classes
                )
        else:
            listing = listing_of_folder(found, with_classes=self.with_classes, split=self.split)
        listing.rejected += found.rejected
        listing.others = found.others
        listing.left_out += found.left_out
        if not listing.entries:
            raise UserError(self._none(listing))
        listing.entries = with_groups(listing.entries, self.group_regex)
        return listing

    def _none(self, listing: Listing) -> str:
        if not listing.rejected:
            return f"{self.describe()} names no videos to take from {self.root}"
        first = listing.rejected[0]
        return (
            f"none of the {len(listing.rejected):,} listed videos is in {self.root}, for "
            f"example {first.path}: {first.reason}"
        )

    def _wanted(self) -> Wanted:
        from vclr_lightning.data.datasets.registry import wanted_of

        return wanted_of(
            str(self.dataset),
            self.annotations,
            split_number=self.split_number,
            view=self.view,
            frames=self.frames is not None,
        )

    def _find(self, show: bool) -> Found:
        with progress_bar("looking for videos", show=show) as update:
            found = find_videos(
                self.root, frames=self.frames, progress=lambda number: update(number, "")
            )
        if found.paths:
            return found
        wanted = self.frames or ".mp4, .avi, .mkv, .webm and the like"
        seen = ", ".join(f"{n} {suffix}" for suffix, n in found.others.most_common(5))
        refused = [f"{one.path}, which {one.reason}" for one in found.rejected[:1]]
        raise UserError(
            f"there are no videos in {self.root}: looked for {wanted}; found "
            f"{', '.join([seen] * bool(seen) + refused) or 'no files'}"
        )

    def describe(self) -> str:
        """Return how the videos are listed, in one line.

        Example:
            >>> ListingSource(root=Path("/"), kinetics=[Path("k400_train.csv")]).describe()
            'Kinetics k400_train.csv'
        """
        if self.lists:
            pairs = (f"{split}={file}" for split, files in self.lists.items() for file in files)
            return f"lists {', '.join(pairs)}"
        if self.kinetics:
            return f"Kinetics {', '.join(map(str, self.kinetics))}"
        if self.dataset is not None:
            view = f", view {wanted.view}" if (wanted := self._wanted()).view else ""
            return f"{self.dataset}, split {self.split_number}{view}, by {self.annotations}"
        return "folder"
