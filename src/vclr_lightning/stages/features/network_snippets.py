"""Snippet features of untrimmed videos, computed by a network."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.localization import AnnotatedVideo, LeftOut, SnippetSet
from vclr_lightning.data.manifest import Manifest

if TYPE_CHECKING:
    from vclr_lightning.stages.features.extractor import FeatureExtractor


class NetworkSnippets:
    """Features of every snippet of the videos of a data module, extracted once and kept.

    Args:
        features: extracts them, with ``every`` and ``keep_frames``.

    Raises:
        UserError: it averages features over a video.
    """

    def __init__(self, features: FeatureExtractor) -> None:
        if not features.keep_frames:
            raise UserError(
                "localisation needs the features of every snippet; give features=snippets"
            )
        self.features = features

    def annotations(self) -> list[AnnotatedVideo]:
        """Return the spans in the videos' manifest.

        Raises:
            UserError: there are none.
        """
        videos = []
        for split in self.features.splits:
            table = self.features.data.split(split)
            if isinstance(table, Manifest) and table.has_spans:
                videos += _spans(table, split)
        if not videos:
            raise UserError(
                "none of the videos has annotated spans; give data=activitynet "
                "data.view=localization, or annotations=FILE such as activity_net.v1-3.min.json"
            )
        return videos

    def open(self, videos: Sequence[AnnotatedVideo]) -> SnippetSet:
        """Return the features of these videos, from every split that has some of them.

        Raises:
            UserError: two files have the name of one annotated video.
        """
        wanted = {video.name for video in videos}
        read, left_out, provenance = {}, {}, {}
        for split, names in self._places(wanted).items():
            table = self.features.data.split(split)
            store = self.features(split)
            provenance[split] = dict(store.provenance)
            for position, row in enumerate(store.index.tolist()):
                if row in names:
                    read[names[row]] = partial(store.video, position)
            ids = {table.video_id(row): name for row, name in names.items()}
            lost = ((r["video_id"], r["reason"]) for r in store.rejected)
            left_out.update({ids[number]: reason for number, reason in lost if number in ids})
        missing = [
            LeftOut(name, "video left out", left_out.get(name, "it is not among the videos"))
            for name in sorted(wanted - read.keys())
        ]
        return SnippetSet(read, False, missing, provenance)

    def _places(self, wanted: Set[str]) -> dict[str, dict[int, str]]:
        """Return the names of the annotated videos by split and row."""
        places: dict[str, dict[int, str]] = {}
        files: dict[str, Path] = {}
        for split in self.features.splits:
            table = self.features.data.split(split)
            for row in range(len(table)):
                stem = str(table.name(row)) if isinstance(table, Manifest) else ""
                # Files of ActivityNet put v_ before the id; ids may begin with v_ themselves.
                names = (name for name in (stem, stem.removeprefix("v_")) if name in wanted)
                if (name := next(names, None)) is None:
                    continue
                path = table.path(row)
                if (other := files.setdefault(name, path)) != path:
                    raise UserError(
                        f"two files are called {name}, {other} and {path}, and the annotations "
                        "name one video; rename one, or leave it out"
                    )
                places.setdefault(split, {})[row] = name
        return places


def _name(table: object, row: int) -> str:
    """Return the video's id, which files of ActivityNet prefix with ``v_``."""
    name = str(table.name(row)) if isinstance(table, Manifest) else ""
    # Ids on YouTube have 11 characters, and may begin with v_ themselves.
    return name[2:] if name.startswith("v_") and len(name) == 13 else name


def _spans(table: Manifest, split: str) -> list[AnnotatedVideo]:
    frames = table.info.frames is not None  # spans of folders of frames are in frames
    durations = table.column("num_frames" if frames else "duration").astype(np.float64)
    videos = []
    for row in range(len(table)):
        spans = table.spans(row)
        duration = float(durations[row]) if durations[row] > 0 else math.nan
        videos.append(
            AnnotatedVideo(
                name=_name(table, row),
                split=split,
                duration=duration,
                covered=duration,
                spans=np.array([s[:2] for s in spans], dtype=np.float64).reshape(-1, 2),
                labels=tuple(table.classes[s.label] if s.label >= 0 else "" for s in spans),
            )
        )
    return videos
