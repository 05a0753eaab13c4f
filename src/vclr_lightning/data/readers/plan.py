"""Which packets to decode for a set of frames, as a pure function of positions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Packets to decode one after another, from a keyframe to the last target.

    Attributes:
        start: position of the packet to start at.
        targets: sorted positions of the packets whose frames are wanted.
    """

    start: int
    targets: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Position of the last packet to decode."""
        return self.targets[-1]


def serving_entry(target: int, entries: Sequence[int], pts: Sequence[int]) -> int:
    """Return the last entry from which ``target`` decodes.

    A frame that comes after a keyframe in the file but is shown before it (a leading frame of an
    open group of pictures) needs the keyframe before that.

    Args:
        target: position of a packet.
        entries: sorted positions at which decoding may start; the first packet always may.
        pts: presentation time of each packet, ``(P,)``.

    Example:
        >>> pts = [0, 2, 1, 6, 4, 5]
        >>> [serving_entry(p, [0, 3], pts) for p in (2, 3, 4, 5)]
        [0, 3, 0, 0]
    """
    number = bisect_right(entries, target)
    while number and pts[entries[number - 1]] > pts[target]:
        number -= 1
    return entries[number - 1] if number else 0


def plan_runs(targets: Iterable[int], entries: Sequence[int], pts: Sequence[int]) -> list[Run]:
    """Return the runs that together decode ``targets`` and as few packets as possible.

    Args:
        targets: positions of packets, in any order, repeats allowed.
        entries: sorted positions at which decoding may start; the first packet always may.
        pts: presentation time of each packet, ``(P,)``.

    Returns:
        Runs in the order of the file. Between two of them lie packets that nothing needs, so that
        seeking to the second one's start saves decoding them.

    Example:
        >>> plan_runs([1, 7, 8], [0, 3, 6], range(9))
        [Run(start=0, targets=(1,)), Run(start=6, targets=(7, 8))]
    """
    spans = sorted((serving_entry(t, entries, pts), t) for t in set(targets))
    runs: list[tuple[int, list[int]]] = []
    for start, target in spans:
        if runs and start <= max(runs[-1][1]) + 1:
            runs[-1][1].append(target)
        else:
            runs.append((start, [target]))
    return [Run(start, tuple(sorted(members))) for start, members in runs]
