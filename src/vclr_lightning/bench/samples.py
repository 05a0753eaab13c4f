"""What a sample costs a data worker."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from cProfile import Profile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from vclr_lightning.data.loading.collate import collate
from vclr_lightning.data.loading.dataset import VideoDataset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vclr_lightning.core.random import Key
    from vclr_lightning.data.loading.view_transforms import Augmented, ViewTransforms
    from vclr_lightning.data.protocols import OpenVideo, VideoReader

PHASES = {
    "open": "open the file, read its index",
    "seek": "seek, read packets",
    "decode": "decode",
    "convert": "convert to RGB",
    "augment": "crop and augment",
    "draw": "draw frames, put clips together",
    "collate": "collate a batch",
}
"""Of a sample, with a description of each."""

_LEAST, _MOST = 8, 512  # samples
_PROFILED = 16  # samples
_KEPT = 64  # samples, for batches to train on


@dataclass(frozen=True, kw_only=True)
class SampleCost:
    """What a sample costs a worker: means over the measured samples.

    Attributes:
        phases: CPU seconds of each of :data:`PHASES`.
        cpu: their sum.
        wall: elapsed seconds, including waits for the disk or a core.
        keys: ``(epoch, row)`` of the measured samples.
        kept: the last of these samples, to train on.
        rejected: videos that could not be read, with reasons.
    """

    phases: dict[str, float]
    cpu: float
    wall: float
    keys: list[tuple[int, int]]
    kept: Sequence[Any]
    rejected: list[Any]

    @property
    def wait(self) -> float:
        """Seconds per sample in which the CPU did nothing for it."""
        return max(0.0, self.wall - self.cpu)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, as a worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sample_cost(
    dataset: VideoDataset,
    keys: Iterator[tuple[int, int]],
    *,
    seconds: float,
    batch: int,
) -> SampleCost:
    """Make the samples of ``keys`` as a worker does until the time is up, at least eight."""
    spent: dict[str, float] = defaultdict(float)
    profile = Profile(time.process_time)
    timed = dataset.replaced(
        reader=TimedReader(dataset.reader, spent),
        transforms=cast(Any, TimedTransforms(dataset.transforms, spent)),
    )
    profiled = dataset.replaced(reader=TimedReader(dataset.reader, defaultdict(float), profile))
    kept: deque[Any] = deque(maxlen=_KEPT)
    made: list[tuple[int, int]] = []
    rejected: list[Any] = []
    wall = whole = 0.0
    begin = time.monotonic()
    with one_thread():
        dataset[next(keys)]
        for key in keys:
            start, start_cpu = time.perf_counter(), time.process_time()
            sample = timed[key]
            wall += time.perf_counter() - start
            whole += time.process_time() - start_cpu
            if len(made) < (_PROFILED if time.monotonic() - begin < seconds else 1):
                profiled[key]
            made.append(key)
            kept.append(sample)
            rejected += sample["rejected"]
            if len(made) >= (_LEAST if time.monotonic() - begin > seconds else _MOST):
                break
        several = [kept[i % len(kept)] for i in range(min(batch, _KEPT))]
        collate(several)  # touches new memory
        start, start_cpu = time.perf_counter(), time.process_time()
        collate(several)
        collate_wall = (time.perf_counter() - start) / len(several)
        collate_cpu = (time.process_time() - start_cpu) / len(several)
    number = len(made)
    phases = {
        "open": spent["open"] / number,
        **{name: share * spent["read"] / number for name, share in read_shares(profile).items()},
        "augment": spent["augment"] / number,
        "draw": max(0.0, whole - sum(spent.values())) / number,
        "collate": collate_cpu,
    }
    return SampleCost(
        phases=phases,
        cpu=sum(phases.values()),
        wall=wall / number + collate_wall,
        keys=made,
        kept=kept,
        rejected=rejected,
    )


@contextmanager
def _timing(spent: dict[str, float], phase: str) -> Iterator[None]:
    start = time.process_time()
    try:
        yield
    finally:
        spent[phase] += time.process_time() - start


class TimedTransforms:
    """The transforms of all views, whose CPU time is added to ``spent["augment"]``."""

    def __init__(self, transforms: ViewTransforms, spent: dict[str, float]) -> None:
        self._transforms = transforms
        self._spent = spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transforms, name)

    def __call__(self, frames: Sequence[NDArray[np.uint8]], *keys: Key) -> Augmented:
        with _timing(self._spent, "augment"):
            return self._transforms(frames, *keys)


class TimedReader:
    """A reader that adds its CPU time to ``spent["open"]`` and ``spent["read"]``, and profiles the
    latter if wanted."""

    def __init__(
        self, reader: VideoReader, spent: dict[str, float], profile: Profile | None = None
    ) -> None:
        self._reader = reader
        self._spent = spent
        self._profile = profile

    @contextmanager
    def open(self, path: Path, *, num_frames: int | None = None) -> Iterator[OpenVideo]:
        context = self._reader.open(path, num_frames=num_frames)
        with _timing(self._spent, "open"):
            video = context.__enter__()

        def close(*error: Any) -> bool | None:
            with _timing(self._spent, "open"):
                return context.__exit__(*error)

        with ExitStack() as stack:
            stack.push(close)
            yield _TimedVideo(video, self._spent, self._profile)


class _TimedVideo:
    def __init__(self, video: OpenVideo, spent: dict[str, float], profile: Profile | None) -> None:
        self._video = video
        self._spent = spent
        self._profile = profile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)

    def times(self) -> NDArray[np.float64]:
        with _timing(self._spent, "open"):
            return self._video.times()

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        with _timing(self._spent, "read"), self._profile or ExitStack():
            return self._video.read(frame_indices)


def read_shares(profile: Profile) -> dict[str, float]:
    """Return the shares of ``seek``, ``decode`` and ``convert`` in a profile of reading.

    FFmpeg's decoder decodes, its scaler and the copy into an array convert, and the rest seeks. A
    reader that does not call them, such as one of images, only decodes; so does all reading by a
    PyAV whose methods a profiler does not see, such as 14.

    Example:
        >>> read_shares(Profile())
        {'seek': 0.0, 'decode': 1.0, 'convert': 0.0}
    """
    seconds = dict.fromkeys(("seek", "decode", "convert"), 0.0)
    for entry in profile.getstats():
        method, _, owner = str(entry.code).partition(" of ")
        phase = {"<method 'decode'": "decode", "<method 'reformat'": "convert"}.get(method)
        if method == "<method 'to_ndarray'":
            phase = "convert"
        seconds[phase if phase and owner.startswith("'av.") else "seek"] += entry.inlinetime
    if not seconds["decode"]:
        return {"seek": 0.0, "decode": 1.0, "convert": 0.0}
    total = sum(seconds.values())
    return {name: value / total for name, value in seconds.items()}
