"""Which video goes into which shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vclr_lightning.data.indexing.journal import Outcome
from vclr_lightning.data.manifest.shards import shard_name


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard before it is written.

    Attributes:
        number: of the shard, from 0.
        first: number of its first video among all.
        files: path, size and time of its videos.
    """

    number: int
    first: int
    files: tuple[Outcome, ...]

    @property
    def name(self) -> str:
        """What the shard is called."""
        return shard_name(self.number)

    def digest(self, about: Mapping[str, Any]) -> str:
        """Return a hash of everything that the shard's bytes depend on.

        Args:
            about: what the shard says of each video, by path.
        """
        files = [(one.path, one.size, one.mtime_ns, about[one.path]) for one in self.files]
        return hashlib.sha256(json.dumps([self.first, files]).encode()).hexdigest()[:32]


def plan_shards(files: Iterable[Outcome], most: int) -> list[ShardPlan]:
    """Fill one shard after another, in the order of the paths.

    Then rows, which a manifest sorts by split and path, keep their order when their videos are
    stored, whatever splits there are.

    Args:
        files: what is to be stored.
        most: bytes of videos in a shard; a larger video has one of its own.

    Example:
        >>> files = [Outcome(path, 4, 0) for path in "bca"]
        >>> [[file.path for file in shard.files] for shard in plan_shards(files, 8)]
        [['a', 'b'], ['c']]
    """
    shards: list[list[Outcome]] = []
    filled = 0
    for file in sorted(files, key=lambda file: file.path):
        if not shards or filled + file.size > most:
            shards.append([])
            filled = 0
        shards[-1].append(file)
        filled += file.size
    plans, first = [], 0
    for number, members in enumerate(shards):
        plans.append(ShardPlan(number, first, tuple(members)))
        first += len(members)
    return plans
