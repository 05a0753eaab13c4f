"""What a measure is the mean of: a score of each video, with its interval over groups."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_text
from vclr_lightning.functional.bootstrap import Interval, bootstrap_interval, paired_interval
from vclr_lightning.results import Column, Table

FILE = "scores"
"""Name of the files, without suffix; of further videos with another word behind."""

_IDENTITY = ("video", "group", "class")
_BY_CLASS = {"mean_class": "top1"}  # the mean over classes of another measure


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """Scores of N videos, by measure: 1 where a video is classified or found, else 0.

    Attributes:
        videos: their names or files, ``(N,)``.
        groups: number or name of each one's group (source); a group of its own where none is known.
        classes: of each, for the mean over classes; empty without labels.
        measures: by name, ``(N,)`` in 0 to 1.

    Example:
        >>> scores = VideoScores(
        ...     videos=list("abcd"), groups=[0, 0, 1, 1], classes=["run", "run", "walk", "walk"],
        ...     measures={"top1": np.array([1.0, 1.0, 0.0, 1.0])},
        ... )
        >>> scores.values
        {'top1': 0.75, 'mean_class': 0.75}
        >>> scores.intervals()["top1"]
        (0.5, 1.0)
    """

    videos: Sequence[str]
    groups: Sequence[int | str]
    measures: Mapping[str, NDArray[np.float64]]
    classes: Sequence[str] = ()

    @property
    def num_groups(self) -> int:
        """Number of different groups."""
        return len(set(self.groups))

    @property
    def values(self) -> dict[str, float]:
        """The mean of each measure, over videos or over classes."""
        found = {name: float(one.mean()) for name, one in self.measures.items()}
        for name, base in self._by_class.items():
            kinds = np.asarray(self.classes)
            means = [self.measures[base][kinds == kind].mean() for kind in np.unique(kinds)]
            found[name] = float(np.mean(means))
        return found

    def intervals(self, **options: Any) -> dict[str, Interval]:
        """Return the interval of each measure; none where all videos are of one group.

        Args:
            options: of :func:`~vclr_lightning.functional.bootstrap.bootstrap_interval`.
        """
        if self.num_groups < 2:
            return {}
        found = {
            name: bootstrap_interval(one, self.groups, **options)
            for name, one in self.measures.items()
        }
        for name, base in self._by_class.items():
            found[name] = bootstrap_interval(
                self.measures[base],
                self.groups,
                classes=self.classes,
                **options,
            )
        return found

    def differences(
        self, *others: VideoScores, **options: Any
    ) -> dict[str, tuple[float, float, float]]:
        """Return each measure minus that of others, and its paired interval.

        Args:
            others: scores of the same videos by other networks, whose mean is compared with.
            options: of :func:`~vclr_lightning.functional.bootstrap.paired_interval`.

        Returns:
            ``(difference, low, high)`` by measure; empty where the videos are not the same, or all
            of one group.
        """
        same = all(list(one.videos) == list(self.videos) for one in others)
        if not others or not same or self.num_groups < 2:
            return {}
        named = [name for name in self.measures if all(name in one.measures for one in others)]
        pairs = {name: name for name in named}
        pairs |= {name: base for name, base in self._by_class.items() if base in named}
        found = {}
        for name, base in pairs.items():
            classes = self.classes if name in self._by_class else None
            mean = np.mean([one.measures[base] for one in others], axis=0)
            low, high = paired_interval(
                self.measures[base],
                mean,
                self.groups,
                classes=classes,
                **options,
            )
            rest = float(np.mean([one.values[name] for one in others]))
            found[name] = (self.values[name] - rest, low, high)
        return found

    def table(self, file: str = FILE) -> Table:
        """Return the scores as a CSV file: ``video``, ``group``, ``class`` and the measures."""
        kinds = self.classes or [""] * len(self.videos)
        columns = [one.tolist() for one in self.measures.values()]
        return Table(
            file=file,
            shown="file",
            columns=[*_IDENTITY, *(Column(name) for name in self.measures)],
            rows=list(zip(self.videos, self.groups, kinds, *columns, strict=True)),
        )

    @classmethod
    def read(cls, file: str | Path) -> VideoScores:
        """Read what :meth:`table` was written to.

        Raises:
            UserError: the file holds no scores of videos.
        """
        rows = list(csv.DictReader(read_text(Path(file)).splitlines()))
        try:
            names = [name for name in rows[0] if name not in _IDENTITY]
            return cls(
                videos=[row["video"] for row in rows],
                groups=[row["group"] for row in rows],
                classes=[row["class"] for row in rows] if rows[0]["class"] else (),
                measures={
                    name: np.array([float(row[name]) for row in rows], dtype=np.float64)
                    for name in names
                },
            )
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} holds no scores of videos; delete it") from error

    @property
    def _by_class(self) -> dict[str, str]:
        there = {name: base for name, base in _BY_CLASS.items() if base in self.measures}
        return there if len(self.classes) else {}
