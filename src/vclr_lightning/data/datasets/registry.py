"""The supported data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import hacs, mmaction2
from vclr_lightning.data.datasets.hacs import read_hacs
from vclr_lightning.data.datasets.kinetics import read_kinetics_folder
from vclr_lightning.data.datasets.match_videos import match
from vclr_lightning.data.datasets.mmaction2 import listing_of_mmaction2
from vclr_lightning.data.datasets.trimmed import (
    read_hmdb51,
    read_sthv2,
    read_ucf101,
)
from vclr_lightning.data.datasets.untrimmed import ACTIVITYNET_VIEWS, read_activitynet
from vclr_lightning.data.indexing.listing import Listing
from vclr_lightning.data.indexing.video_files import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which annotations of a data set to read, and which part of them as which rows."""

    folder: Path
    split_number: int
    view: str
    frames: bool = False


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set with official files.

    Attributes:
        title: its name in sentences.
        listing: matches the wanted part of the files with the videos found.
        splits: number of official divisions into training and test set.
        views: kinds of rows, the default first; empty where there is only one.
    """

    title: str
    listing: Callable[[Wanted, Found], Listing]
    splits: int = 1
    views: tuple[str, ...] = ()


DATASETS: Mapping[str, DataSet] = {
    "ucf101": DataSet(
        title="UCF101",
        listing=lambda w, found: match(read_ucf101(w.folder, split_number=w.split_number), found),
        splits=3,
    ),
    "hmdb51": DataSet(
        title="HMDB51",
        listing=lambda w, found: match(read_hmdb51(w.folder, split_number=w.split_number), found),
        splits=3,
    ),
    "sthv2": DataSet(
        title="Something-Something-v2",
        listing=lambda w, found: match(read_sthv2(w.folder), found),
    ),
    "activitynet": DataSet(
        title="ActivityNet 1.3",
        listing=lambda w, found: match(read_activitynet(w.folder, view=w.view), found),
        views=ACTIVITYNET_VIEWS,
    ),
    "kinetics400": DataSet(
        title="Kinetics-400",
        listing=lambda w, found: match(read_kinetics_folder(w.folder, classes=400), found),
    ),
    "kinetics600": DataSet(
        title="Kinetics-600",
        listing=lambda w, found: match(read_kinetics_folder(w.folder, classes=600), found),
    ),
    "hacs": DataSet(
        title="HACS",
        listing=lambda w, found: match(read_hacs(w.folder, view=w.view), found),
        views=hacs.VIEWS,
    ),
    "mmaction2": DataSet(
        title="mmaction2",
        listing=lambda w, found: listing_of_mmaction2(
            w.folder, found, split_number=w.split_number, view=w.view, frames=w.frames
        ),
        splits=3,
        views=mmaction2.VIEWS,
    ),
}


def wanted_of(
    name: str,
    folder: Path | None,
    *,
    split_number: int = 1,
    view: str | None = None,
    frames: bool = False,
) -> Wanted:
    """Check the options of a data set.

    Args:
        name: in :data:`DATASETS`.
        folder: of its annotation files.
        split_number: of the official splits, from 1.
        view: kind of rows; ``None`` for the default.
        frames: whether the videos are folders of extracted frames.

    Raises:
        UserError: there is no such data set, folder, split or view.

    Example:
        >>> wanted_of("activitynet", Path("/")).view
        'clips'
    """
    if name not in DATASETS:
        raise UserError(f"there is no data set {name!r}; take one of {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if folder is None:
        raise UserError(
            f"the official files of {dataset.title} are missing; give their folder as annotations"
        )
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; give the folder of {dataset.title}'s official files")
    if not isinstance(split_number, int) or not 1 <= split_number <= dataset.splits:
        splits = f"splits 1 to {dataset.splits}" if dataset.splits > 1 else "one split alone"
        raise UserError(f"{dataset.title} has {splits}, no split {split_number!r}")
    if view is not None and view not in dataset.views:
        views = f"take one of {', '.join(dataset.views)}" if dataset.views else "leave it out"
        raise UserError(f"{dataset.title} has no view {view!r}; {views}")
    chosen = view or next(iter(dataset.views), "")
    return Wanted(folder=folder, split_number=split_number, view=chosen, frames=frames)


def listing_of_dataset(
    name: str, wanted: Wanted, found: Found, *, with_classes: bool = True
) -> Listing:
    """Read a data set's official files and find its videos.

    Args:
        name: in :data:`DATASETS`.
        wanted: options, by :func:`wanted_of`.
        found: the videos below the root.
        with_classes: whether to keep labels.

    Raises:
        UserError: a file is missing or wrong, or clips are wanted from folders of frames.
    """
    listing = DATASETS[name].listing(wanted, found)
    timed = (e for e in listing.entries if e.start is not None or e.spans)
    if wanted.frames and name != "mmaction2" and next(timed, None) is not None:
        raise UserError(
            f"{DATASETS[name].title} annotates in seconds, which extracted frames do not have; "
            "give video files, or the view videos"
        )
    return listing if with_classes else without_classes(listing)


def without_classes(listing: Listing) -> Listing:
    """Return a listing without labels and spans; clips that differ in nothing else become one."""
    bare = [replace(entry, label=-1, spans=()) for entry in listing.entries]
    entries = {(entry.path, entry.start, entry.end): entry for entry in reversed(bare)}
    return replace(listing, entries=list(reversed(entries.values())), classes=())
