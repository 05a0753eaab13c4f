"""Decode packets for a few of their frames, checking for contradictions, and convert to RGB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from vclr_lightning.data.readers.bitstream import (
    UnitCheck,
    is_clean_entry,
    may_skip_unreferenced,
    may_start_within,
    starts_anew,
)
from vclr_lightning.data.readers.opening import PYAV

if TYPE_CHECKING:
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

# From PyAV 17 on, the conversion otherwise runs in as many threads as there are cores.
ONE_THREAD: dict[str, Any] = {"threads": 1} if PYAV >= 17 else {}


class ContradictionError(Exception):
    """The file contradicts its container, which can then not identify frames."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Packets to decode one after another.

    Attributes:
        packets: from a keyframe to the last one wanted.
        wanted: a key for each presentation time whose frame is wanted.
        expected: frames that the packets hold.
        entry: presentation time of the first packet, if earlier packets of the file are left out.
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
        picture: converts a frame to an array.
        skip_unreferenced: skip unwanted frames to which no other refers; exact with one thread.
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
        self._units_fit = UnitCheck(self._codec, self._extradata)
        self._skips = skip_unreferenced and may_skip_unreferenced(self._codec, self._extradata)
        # Two fields of an H.264 picture may come in two packets: then packets count double.
        self._refuses_fields = self._codec == "h264" and not count_known

    @property
    def may_seek(self) -> bool:
        """Whether seeking is possible at all: a palette comes once, before the first frame."""
        return self._context.pix_fmt != "pal8"

    @property
    def may_start_within(self) -> bool:
        """Whether a stretch may start at another keyframe than the stream's first."""
        return self.may_seek and may_start_within(self._codec)

    def is_clean_entry(self, packet: av.Packet) -> bool:
        """Return whether decoding from this keyframe gives what decoding from the first gives."""
        return is_clean_entry(self._codec, bytes(packet), self._extradata)

    def is_whole(self, packet: av.Packet) -> bool:
        """Return whether a packet, undecoded, shows no damage and changes no header."""
        return not packet.is_corrupt and self._units_fit(packet, packet.size)

    def joins(self, packet: av.Packet) -> bool:
        """Return whether a stretch starting with this packet may follow another directly.

        Draining the decoder in between would cost it all that it has set up.
        """
        return self._codec == "h264" and starts_anew(bytes(packet), self._extradata)

    def decode(
        self, stretches: Sequence[Stretch], *, since: int | None = None
    ) -> dict[int, NDArray[np.uint8]]:
        """Decode stretches in order of presentation, after a seek, and return pictures by key.

        Frames shown before ``since`` belong to packets outside the stretches and are ignored.

        Raises:
            ContradictionError: a frame is damaged, is missing, or comes in another order.
        """
        collected = _Collector(stretches, self._picture, since, refuses_fields=self._refuses_fields)
        context, skips = self._context, self._skips
        context.skip_frame, skipping = "DEFAULT", False
        try:
            for stretch in stretches:
                if stretch is not stretches[0] and not stretch.joins:
                    collected.add(context.decode(None))
                    context.flush_buffers()
                wanted = stretch.wanted
                for packet in stretch.packets:
                    if skips and skipping is (packet.pts in wanted):
                        skipping = not skipping
                        context.skip_frame = "NONREF" if skipping else "DEFAULT"
                    collected.add(context.decode(packet))
            collected.add(context.decode(None))
        except av.FFmpegError as error:
            raise ContradictionError(f"{error}") from error
        if not skips and collected.count < sum(stretch.expected for stretch in stretches):
            raise ContradictionError("fewer frames than packets")
        if len(collected.pictures) < sum(len(stretch.wanted) for stretch in stretches):
            raise ContradictionError("a frame that the container promises does not decode")
        return collected.pictures


class _Collector:
    """Checks the frames that a decoder returns and keeps the wanted ones, by key."""

    def __init__(
        self,
        stretches: Sequence[Stretch],
        picture: PictureMaker,
        since: int | None,
        *,
        refuses_fields: bool,
    ) -> None:
        self._wanted = {pts: key for one in stretches for pts, key in one.wanted.items()}
        # An AVI without an index calls every packet a keyframe.
        self._entries = {one.entry for one in stretches}
        self._picture, self._since, self._refuses_fields = picture, since, refuses_fields
        self._last: int | None = None
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        self.count = 0

    def add(self, frames: list[av.VideoFrame]) -> None:
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
                raise ContradictionError("a packet marked as a keyframe is none")
            if self._refuses_fields and frame.interlaced_frame:
                raise ContradictionError("two packets may make one frame")
            self.count += 1
            key = self._wanted.get(pts)
            if key is not None:
                self.pictures[key] = self._picture(frame)


def upright(picture: NDArray[np.uint8], matrix: Sequence[int]) -> NDArray[np.uint8]:
    """Apply a display matrix: rotations by quarter turns, and mirroring.

    Args:
        picture: ``(H, W, 3)``.
        matrix: nine numbers as containers store them: the stored pixel ``(x, y)`` is shown at
            ``(m0 x + m3 y, m1 x + m4 y)``, up to a shift.

    Example:
        >>> picture = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
        >>> upright(picture, [0, 1, 0, -1, 0, 0, 0, 0, 1])[:, :, 0].tolist()  # clockwise
        [[3, 0], [4, 1], [5, 2]]
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    along, across = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.swapaxes(0, 1)
        along, across = c, b
    if along < 0:
        picture = picture[:, ::-1]
    if across < 0:
        picture = picture[::-1]
    return picture


class PictureMaker:
    """Converts the decoded frames of one video to RGB with one converter.

    A display matrix that only mirrors top to bottom goes unnoticed: FFmpeg reports no rotation.
    """

    def __init__(self) -> None:
        self._converter = VideoReformatter()
        self._matrices: dict[int, list[int]] = {}

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return ``(H, W, 3)`` uint8, upright; rows may be padded."""
        rgb = self._converter.reformat(frame, format="rgb24", **ONE_THREAD)
        picture = cast("NDArray[np.uint8]", rgb.to_ndarray())
        if turn := frame.rotation:
            if turn not in self._matrices:
                self._matrices[turn] = _display_matrix(frame)
            turned = upright(picture, self._matrices[turn])
            picture = np.ascontiguousarray(turned)  # torch takes no negative strides
        return picture


def _display_matrix(frame: av.VideoFrame) -> list[int]:
    # Reading a frame's side data ties it into a reference cycle, so a tiny copy's is read.
    copy = VideoReformatter().reformat(frame, width=16, height=16, format="gray", **ONE_THREAD)
    side_data: Any = copy.side_data
    return [int(number) for number in np.frombuffer(side_data[Type.DISPLAYMATRIX], np.int32)]
