"""Decode a stretch of packets for a few of its frames, and watch for contradictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av

from vclr_lightning.data.readers.bitstream import (
    UnitCheck,
    is_clean_entry,
    may_skip_unreferenced,
    may_start_within,
    starts_anew,
)

if TYPE_CHECKING:
    import numpy as np
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.picture import PictureMaker


class ContradictionError(Exception):
    """The file does not behave as its container says; a frame's index cannot be told from it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Packets to decode one after another.

    Attributes:
        packets: from a keyframe to the last one wanted.
        wanted: a key for each presentation time whose frame is wanted.
        expected: frames that the packets hold.
        entry: presentation time of the keyframe that they start with, where earlier packets of the
            file are left out.
        joins: whether the decoder may go on from what it decoded before.
    """

    packets: Iterable[av.Packet]
    wanted: Mapping[int, int]
    expected: int
    entry: int | None = None
    joins: bool = False


class StretchDecoder:
    """Decodes stretches of one stream, each from a keyframe on.

    Args:
        stream: a video stream, no packet of which has been decoded.
        picture: turns a frame into an array.
        skip_unreferenced: whether frames that are not wanted and to which no other refers may be
            left out; exact with one decoding thread.
        count_known: whether the number of frames is known from decoding.
    """

    def __init__(
        self,
        *,
        stream: VideoStream,
        picture: PictureMaker,
        skip_unreferenced: bool,
        count_known: bool,
    ) -> None:
        context = stream.codec_context
        self._context = context
        self._picture = picture
        self._codec = context.codec.canonical_name
        self._extradata = context.extradata or b""
        self._fits = UnitCheck(self._codec, self._extradata)
        self._skips = skip_unreferenced and may_skip_unreferenced(self._codec, self._extradata)
        # Two fields of an H.264 picture may come in two packets: then packets count double.
        self._refuses_fields = self._codec == "h264" and not count_known

    @property
    def may_seek(self) -> bool:
        """Whether frames may be sought at all: a palette comes once, before the first of them."""
        return self._context.pix_fmt != "pal8"

    @property
    def may_start_within(self) -> bool:
        """Whether a stretch may start at another keyframe than the stream's first."""
        return self.may_seek and may_start_within(self._codec)

    def is_clean_entry(self, packet: av.Packet) -> bool:
        """Return whether decoding from this keyframe gives what decoding from the first gives."""
        return is_clean_entry(self._codec, bytes(packet), self._extradata)

    def is_whole(self, packet: av.Packet) -> bool:
        """Return whether a packet shows no damage without decoding it, and changes no header."""
        return not packet.is_corrupt and self._fits(packet, packet.size)

    def joins(self, packet: av.Packet) -> bool:
        """Return whether a stretch that starts with this packet may follow another directly.

        Draining the decoder in between costs it all that it has set up.
        """
        return self._codec == "h264" and starts_anew(bytes(packet), self._extradata)

    def decode(
        self, stretches: Sequence[Stretch], *, since: int | None = None
    ) -> dict[int, NDArray[np.uint8]]:
        """Decode stretches, in the order in which they are shown.

        Args:
            stretches: of a decoder that has been flushed.
            since: frames shown before this belong to packets that are not part of a stretch.

        Returns:
            The wanted pictures, by key.

        Raises:
            ContradictionError: a frame is damaged, is missing, or comes in another order.
        """
        collected = _Collector(stretches, self._picture, since, refuses_fields=self._refuses_fields)
        self._context.skip_frame = "DEFAULT"
        try:
            for stretch in stretches:
                if stretch is not stretches[0] and not stretch.joins:
                    collected.add(self._context.decode(None))
                    self._context.flush_buffers()
                self._feed(stretch, collected)
            collected.add(self._context.decode(None))
        except av.FFmpegError as error:
            raise ContradictionError(f"{error}") from error
        if not self._skips and collected.count < sum(stretch.expected for stretch in stretches):
            raise ContradictionError("fewer frames than packets")
        return collected.pictures()

    def _feed(self, stretch: Stretch, collected: _Collector) -> None:
        context, wanted, skips = self._context, stretch.wanted, self._skips
        skipping = context.skip_frame == "NONREF"
        for packet in stretch.packets:
            if skips and skipping is (packet.pts in wanted):
                skipping = not skipping
                context.skip_frame = "NONREF" if skipping else "DEFAULT"
            collected.add(context.decode(packet))


class _Collector:
    """Keeps the wanted frames among those that a decoder gives."""

    def __init__(
        self,
        stretches: Sequence[Stretch],
        picture: PictureMaker,
        since: int | None,
        *,
        refuses_fields: bool,
    ) -> None:
        self._wanted = {pts: key for one in stretches for pts, key in one.wanted.items()}
        # What a container calls a keyframe may be none: an AVI without an index calls all so.
        self._entries = {one.entry for one in stretches}
        self._picture = picture
        self._since = since
        self._refuses_fields = refuses_fields
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._last: int | None = None
        self.count = 0

    def add(self, frames: list[av.VideoFrame]) -> None:
        """Take what one packet gave."""
        for frame in frames:
            pts = frame.pts
            if pts is None or (self._last is not None and pts <= self._last):
                raise ContradictionError("frames decode in another order than they are shown")
            self._last = pts
            if self._since is not None and pts < self._since:
                continue
            if frame.is_corrupt:
                raise ContradictionError("a frame is damaged")
            if pts in self._entries and not frame.key_frame:
                raise ContradictionError("a keyframe is none")
            if self._refuses_fields and frame.interlaced_frame:
                raise ContradictionError("two packets may make one frame")
            self.count += 1
            key = self._wanted.get(pts)
            if key is not None:
                self._pictures[key] = self._picture(frame)

    def pictures(self) -> dict[int, NDArray[np.uint8]]:
        """Return the wanted frames by key."""
        if len(self._pictures) < len(self._wanted):
            raise ContradictionError("a frame that the container promises does not decode")
        return self._pictures
