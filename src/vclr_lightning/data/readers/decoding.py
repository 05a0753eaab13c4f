"""Decode a stretch of packets for a few of its frames, and watch for contradictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import av

from vclr_lightning.data.readers.bitstream import (
    fills_packet,
    is_clean_entry,
    length_prefix,
    may_skip_unreferenced,
    may_start_within,
)

if TYPE_CHECKING:
    import numpy as np
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.picture import PictureMaker


class ContradictionError(Exception):
    """The file does not behave as its container says; a frame's rank cannot be told from it."""


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
        self._prefix = length_prefix(self._codec, self._extradata)
        self._skips = skip_unreferenced and may_skip_unreferenced(self._codec, self._extradata)
        # Two fields of an H.264 picture may come in two packets: then packets count double.
        self._refuses_fields = self._codec == "h264" and not count_known

    @property
    def may_start_within(self) -> bool:
        """Whether a stretch may start at another keyframe than the stream's first."""
        return may_start_within(self._codec)

    def is_clean_entry(self, packet: av.Packet) -> bool:
        """Return whether decoding from this keyframe gives what decoding from the first gives."""
        return is_clean_entry(self._codec, bytes(packet), self._extradata)

    def is_whole(self, packet: av.Packet) -> bool:
        """Return whether a packet shows no damage without decoding it."""
        if packet.is_corrupt:
            return False
        return not self._prefix or fills_packet(packet, packet.size, self._prefix)

    def decode(
        self,
        packets: Iterable[av.Packet],
        wanted: Mapping[int, int],
        *,
        since: int | None,
        expected: int,
    ) -> dict[int, NDArray[np.uint8]]:
        """Decode one stretch.

        Args:
            packets: from a keyframe to the last one wanted; the decoder has been flushed.
            wanted: a key for each presentation time whose frame is wanted.
            since: frames shown before this belong to packets that are not part of the stretch.
            expected: frames that the packets hold, from ``since`` on.

        Returns:
            The pictures, by key.

        Raises:
            ContradictionError: a frame is damaged, is missing, or comes in another order.
        """
        context = self._context
        collected = _Collector(wanted, self._picture, since, refuses_fields=self._refuses_fields)
        skipping = False
        context.skip_frame = "DEFAULT"
        try:
            for packet in packets:
                if self._skips and skipping is (packet.pts in wanted):
                    skipping = not skipping
                    context.skip_frame = "NONREF" if skipping else "DEFAULT"
                collected.add(context.decode(packet))
            collected.add(context.decode(None))
        except av.FFmpegError as error:
            raise ContradictionError(f"{error}") from error
        if not self._skips and collected.count < expected:
            raise ContradictionError("fewer frames than packets")
        return collected.pictures()


class _Collector:
    """Keeps the wanted frames among those that a decoder gives."""

    def __init__(
        self,
        wanted: Mapping[int, int],
        picture: PictureMaker,
        since: int | None,
        *,
        refuses_fields: bool,
    ) -> None:
        self._wanted = wanted
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
