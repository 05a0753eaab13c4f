"""What the index of an MP4 tells of its packets, without reading any."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter, lt, sub
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_KEY, _DISCARD = 1, 2


@dataclass(frozen=True, slots=True)
class GroupIndex:
    """Packets of a stream, in groups that each start with a keyframe.

    Attributes:
        times: time of decoding of each packet, rising.
        starts: position of each keyframe; the first is 0.
    """

    times: list[int]
    starts: list[int]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def spacing(self) -> int | None:
        """Time from each packet to the next, where that is the same for all."""
        steps = set(map(sub, islice(self.times, 1, None), self.times))
        return steps.pop() if len(steps) == 1 else None

    def group(self, position: int) -> range:
        """Return the positions of the group that ``position`` is in.

        Example:
            >>> GroupIndex([0, 1, 2, 3, 4], [0, 3]).group(2)
            range(0, 3)
        """
        number = bisect_right(self.starts, position)
        end = self.starts[number] if number < len(self.starts) else len(self)
        return range(self.starts[number - 1], end)


def read_index(container: InputContainer, stream: VideoStream) -> GroupIndex | None:
    """Return the stream's index, or ``None`` where there is none or it may not tell everything.

    It must hold as many packets as the header promises, the last within the file and none left out
    by an edit list. Reading it costs a tenth of reading the packets.
    """
    entries: Any = getattr(stream, "index_entries", ())  # PyAV 17 and later
    if not container.format.name.startswith("mov") or not 0 < len(entries) == stream.frames:
        return None
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec == "vp8" or (codec == "mpeg4" and context.has_b_frames):
        return None  # not every packet gives one frame
    read = list(map(attrgetter("timestamp", "flags"), entries))
    times, flags = [time for time, _ in read], [flag for _, flag in read]
    last = entries[-1]
    if (
        not flags[0] & _KEY
        or any(flag & _DISCARD for flag in set(flags))
        or not all(map(lt, times, islice(times, 1, None)))
        or last.pos + last.size > container.size
    ):
        return None
    return GroupIndex(times, [i for i, flag in enumerate(flags) if flag & _KEY])
