"""A reader and a transform that are timed, whatever they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from cProfile import Profile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from vclr_lightning.bench.clock import Clock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.data.protocols import ClipTransform, OpenVideo, VideoReader

# What the files of the readers do while frames are read; all others decode.
_SEEKING = {
    *("bitstream", "index", "indexed", "opening", "order", "plan", "planned", "shards"),
    *("sources", "table", "trust", "video"),
}
_CONVERTING = {"picture"}


class WatchedTransform:
    """A transform whose calls are timed as ``augment``."""

    def __init__(self, transform: ClipTransform, clock: Clock) -> None:
        self._transform = transform
        self._clock = clock

    @property
    def size(self) -> int:
        return self._transform.size

    def __call__(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Tensor:
        with self._clock("augment"):
            return self._transform(clip, rng)

    def begin(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Any:
        with self._clock("augment"):
            return self._transform.begin(clip, rng)  # type: ignore[attr-defined]


class WatchedReader:
    """A reader whose videos are timed: ``open`` (and close), and ``read``.

    Args:
        reader: of any kind.
        clock: where the time goes.
        profile: what looks into ``read``, if anything.
    """

    def __init__(self, reader: VideoReader, clock: Clock, profile: Profile | None = None) -> None:
        self._reader = reader
        self._clock = clock
        self._profile = profile

    @contextmanager
    def open(self, path: Path, *, num_frames: int | None = None) -> Iterator[OpenVideo]:
        context = self._reader.open(path, num_frames=num_frames)
        with self._clock("open"):
            video = context.__enter__()
        try:
            yield _WatchedVideo(video, self._clock, self._profile)
        except BaseException as error:
            if not context.__exit__(type(error), error, error.__traceback__):
                raise
        else:
            with self._clock("open"):
                context.__exit__(None, None, None)


class _WatchedVideo:
    def __init__(self, video: OpenVideo, clock: Clock, profile: Profile | None) -> None:
        self._video = video
        self._clock = clock
        self._profile = profile

    @property
    def num_frames(self) -> int:
        return self._video.num_frames

    def times(self) -> NDArray[np.float64]:
        with self._clock("open"):
            return self._video.times()

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        with self._clock("read"):
            if self._profile is None:
                return self._video.read(frame_indices)
            self._profile.enable()
            try:
                return self._video.read(frame_indices)
            finally:
                self._profile.disable()


def shares_of_reading(profile: Profile) -> dict[str, float]:
    """Return the shares of ``seek``, ``decode`` and ``convert`` in what a profile saw of reading.

    By the file of the function at work; what the libraries do counts for the function of ours that
    called them, since a profile without builtins knows no others. A reader that does all in one
    call, or decodes pictures, only decodes.

    Example:
        >>> shares_of_reading(Profile())
        {'seek': 0.0, 'decode': 1.0, 'convert': 0.0}
    """
    seconds: dict[str, float] = defaultdict(float)
    for entry in profile.getstats():
        code: Any = entry.code
        if not isinstance(code, str):
            seconds[_phase(PurePath(code.co_filename))] += entry.inlinetime
    total = sum(seconds.values())
    if not total:
        return {"seek": 0.0, "decode": 1.0, "convert": 0.0}
    return {name: seconds[name] / total for name in ("seek", "decode", "convert")}


def _phase(file: PurePath) -> str:
    if file.parent.name != "readers":
        return "decode"
    return "seek" if file.stem in _SEEKING else "convert" if file.stem in _CONVERTING else "decode"
