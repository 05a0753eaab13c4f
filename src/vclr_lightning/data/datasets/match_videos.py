"""Match official lists with the videos of a folder."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from vclr_lightning.data.indexing.listing import SPLIT_NAMES, Listing
from vclr_lightning.data.indexing.video_files import VIDEO_SUFFIXES, same_name
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Row

if TYPE_CHECKING:
    from vclr_lightning.data.datasets.official import Named, Official
    from vclr_lightning.data.indexing.video_files import Found


def match(official: Official, found: Found) -> Listing:
    """Match listed videos with files by name, wherever below the root the files are.

    Every listed video becomes an entry or a rejection. Of several files with one name, one in a
    folder of its split and class is preferred.

    Example:
        >>> from vclr_lightning.data.datasets.official import Named, Official
        >>> from vclr_lightning.data.indexing.video_files import Found
        >>> videos = [Named(stems=("a",), split="val"), Named(stems=("b",), split="val")]
        >>> listing = match(Official(videos=videos), Found(["x/a.mp4", "x/c.mp4"]))
        >>> [e.path for e in listing.entries], listing.rejected[0].reason, listing.unlisted
        (['x/a.mp4'], 'no such video', 1)
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in found.paths:
        by_stem[same_name(stem_of(path))].append(path)
    loose = _loose_names(official, by_stem) if official.loose else {}
    entries: list[Row] = []
    rejected = list(official.rejected)
    taken: set[tuple[object, ...]] = set()
    for named in official.videos:
        title = named.name or named.stems[0]
        stem = next((s for s in map(same_name, named.stems) if s in by_stem), None)
        paths = by_stem[stem] if stem is not None else loose.get(_loose(named.stems[0]), ())
        if not paths:
            reason = f"no such video{named.listed_by and f'; {named.listed_by} lists it'}"
            rejected.append(Rejected(title, reason, split=named.split))
            continue
        path = min(paths, key=lambda path: (-_agreement(path, named), path))
        whole = named.start is None
        place = (path,) if whole else (path, named.start, named.end, named.label)
        if place in taken:
            again = path if whole else title
            by = named.listed_by and f" by {named.listed_by} ({named.split})"
            rejected.append(Rejected(again, f"listed again{by}", split=named.split))
            continue
        taken.add(place)
        entries.append(
            Row(
                path=path,
                split=named.split,
                label=named.label,
                name=named.name,
                group=named.group,
                start=named.start,
                end=named.end,
                spans=named.spans,
            )
        )
    return Listing(
        entries=entries,
        classes=official.classes,
        rejected=rejected,
        unlisted=len(found.paths) - len({entry.path for entry in entries}),
        left_out=official.left_out,
    )


def stem_of(path: str) -> str:
    """Return a video's name without folder and suffix; of a folder of frames, its name.

    Example:
        >>> stem_of("a/b.c.AVI"), stem_of("a/b.c")
        ('b.c', 'b.c')
    """
    name = os.path.basename(path)
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def _loose(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", same_name(stem).casefold())


def _loose_names(official: Official, by_stem: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return paths by the letters and digits of names that are not official, where unambiguous."""
    exact = {same_name(stem) for named in official.videos for stem in named.stems}
    once = Counter(_loose(stem) for stem in exact)
    stems: dict[str, list[str]] = defaultdict(list)
    for stem in by_stem:
        if stem not in exact and once[_loose(stem)] == 1:
            stems[_loose(stem)].append(stem)
    return {key: by_stem[names[0]] for key, names in stems.items() if len(names) == 1}


def _agreement(path: str, named: Named) -> int:
    """Score a path by its folders: 2 for the split's, 1 for the class's."""
    parts = path.split("/")[:-1]
    folders = [same_name(part).replace("_", " ") for part in parts]
    of_split = any(SPLIT_NAMES.get(part) == named.split for part in parts)
    return 2 * of_split + (same_name(named.folder).replace("_", " ") in folders)
