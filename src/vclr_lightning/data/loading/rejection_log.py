"""The list of videos that cannot be read, and when there are too many of them."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.types import Rejection


def too_many(rejected: int, attempted: int, *, max_share: float, num_videos: int) -> bool:
    """Return whether more than a share of ``num_videos`` is rejected, judging by those attempted.

    Once all were attempted, the share is compared as it is. Before, it must exceed the limit by
    three standard deviations of a random sample of that size, and at least 20 videos must have
    been attempted: one bad video among the first three says nothing yet.

    Args:
        rejected: distinct videos rejected.
        attempted: distinct videos attempted, rejected ones included.
        max_share: share of videos that may be rejected.
        num_videos: videos in all.

    Example:
        >>> too_many(1, 3, max_share=0.05, num_videos=1000)
        False
        >>> too_many(10, 40, max_share=0.05, num_videos=1000)
        True
        >>> too_many(51, 1000, max_share=0.05, num_videos=1000)
        True
    """
    if attempted < min(20, num_videos):
        return False
    unseen = max(0.0, 1 - attempted / num_videos)
    deviation = math.sqrt(attempted * max_share * (1 - max_share) * unseen)
    return rejected > max_share * attempted + 3 * deviation


class RejectionLog:
    """Keeps the videos that cannot be read, also in a CSV file, and stops a run with too many.

    A video that can be read again leaves the list. New rows are appended at once and whole; when
    some leave, and after a resume, the file is rewritten.

    Args:
        path: the file, with columns video_id, path and reason; ``None`` for none (as on all ranks
            but the first).
        num_videos: videos in the training set.
        max_share: share of them that may be rejected.

    Raises:
        UserError: ``max_share`` is not between 0 and 1.

    Example:
        >>> log = RejectionLog(None, num_videos=100, max_share=0.05)
        >>> log.add([{"video_id": 7, "path": "a.mp4", "reason": "empty"}], seen=[8, 9])
        [{'video_id': 7, 'path': 'a.mp4', 'reason': 'empty'}]
        >>> len(log), log.share
        (1, 0.3333333333333333)
        >>> log.add([], seen=[7]), len(log)
        ([], 0)
    """

    def __init__(self, path: Path | None, *, num_videos: int, max_share: float = 0.05) -> None:
        if not 0 <= max_share <= 1:
            raise UserError(f"max_rejected_share={max_share} must be between 0 and 1")
        self._path = path
        self._num_videos = num_videos
        self._max_share = max_share
        self._rejected: dict[int, Rejection] = {}
        self._seen: set[int] = set()
        self._appending = False

    def __len__(self) -> int:
        """Distinct videos rejected."""
        return len(self._rejected)

    @property
    def attempted(self) -> int:
        """Distinct videos attempted, rejected ones included."""
        return len(self._seen)

    @property
    def share(self) -> float:
        """Rejected videos among those attempted."""
        return len(self) / max(1, self.attempted)

    def add(self, rejected: Iterable[Rejection], *, seen: Iterable[int]) -> list[Rejection]:
        """Add the results of some batches of all ranks.

        Args:
            rejected: their rejections.
            seen: ids of the videos that were read, which overrides a rejection.

        Returns:
            The rejections that are new.

        Raises:
            UserError: the file cannot be written.
        """
        read = {int(video) for video in seen}
        again = read & self._rejected.keys()
        for video in again:
            del self._rejected[video]
        new = []
        for rejection in rejected:
            video = rejection["video_id"]
            if video not in read and video not in self._rejected:
                self._rejected[video] = rejection
                new.append(rejection)
        self._seen |= read | {rejection["video_id"] for rejection in new}
        if again:
            self._appending = False
        if new or again:
            self._write(new)
        return new

    def check(self) -> None:
        """Stop a run that would train on too small a part of its data.

        Raises:
            UserError: too many videos were rejected, see :func:`too_many`.
        """
        if too_many(
            len(self), self.attempted, max_share=self._max_share, num_videos=self._num_videos
        ):
            last = next(reversed(self._rejected.values()))
            where = f", all listed in {shlex.quote(str(self._path))}" if self._path else ""
            raise UserError(
                f"{len(self)} of {self.attempted} videos could not be read ({self.share:.1%}, "
                f"allowed are {self._max_share:.1%}){where}; the last: {last['path']}: "
                f"{last['reason']}; repair or leave out the files, or raise max_rejected_share"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain lists, numbers and a tensor."""
        return {
            "rejected": [dict(rejection) for rejection in self._rejected.values()],
            "seen": torch.tensor(sorted(self._seen), dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint's state, and the file with it.

        Raises:
            UserError: the file cannot be written.
        """
        rejected: list[Rejection] = state["rejected"]
        self._rejected = {item["video_id"]: item for item in rejected}
        self._seen = set(torch.as_tensor(state["seen"]).tolist())
        self._appending = False
        if self._path is not None and (self._rejected or self._path.exists()):
            self._write([])

    def _write(self, new: list[Rejection]) -> None:
        if self._path is None:
            return
        if not self._appending:
            with replacing(self._path) as file:
                file.write(_csv(self._rejected.values(), header=True))
            self._appending = True
            return
        try:
            # Unbuffered: one write for all new rows, so nobody reads half a row.
            with open(self._path, "ab", buffering=0) as file:
                file.write(_csv(new))
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from error


def _csv(rejections: Iterable[Rejection], *, header: bool = False) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(
        text, ("video_id", "path", "reason"), extrasaction="ignore", lineterminator="\n"
    )
    if header:
        table.writeheader()
    table.writerows(rejections)
    return text.getvalue().encode()
