"""Whose fault a failure is: the file's, the system's, which may pass, or that of some code."""

from __future__ import annotations

import errno
import importlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import torch

from vclr_lightning import cli, train
from vclr_lightning.core.errors import CodeFault, UserError, causes
from vclr_lightning.data import faults
from vclr_lightning.data.faults import is_transient
from vclr_lightning.data.jobs import Answer, LocalProcesses, run_job
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.evaluation_datasets import CentresDataset, FramesDataset
from vclr_lightning.data.loading.loader import BatchLoader
from vclr_lightning.data.loading.workers import WorkerOptions
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import TransientError, VideoError
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

BY_TRANSFORM = "OSError: [Errno 5] by the transform"
FAULTS = (TypeError, AttributeError, ValueError, IndexError, KeyError, RuntimeError, EOFError)


class Failing:
    """A reader that raises in its place; each error once, the first ones first."""

    def __init__(self, *errors: Exception, when: str = "open") -> None:
        self.errors, self.when, self.opened = list(errors), when, 0

    def _fail(self, when: str) -> None:
        if when == self.when and self.errors:
            raise self.errors.pop(0)

    @contextmanager
    def open(self, path: Path, *, num_frames: int | None = None) -> Iterator[Any]:
        self.opened += 1
        self._fail("open")
        with PyAVReader().open(path, num_frames=num_frames) as video:
            self._fail("count")
            yield _Video(video, self._fail)


class _Video:
    def __init__(self, video: Any, fail: Callable[[str], None]) -> None:
        self._video, self._fail, self._reads = video, fail, 0
        self.num_frames = video.num_frames

    def read(self, frame_indices: Any) -> Any:
        self._reads += 1
        self._fail("read")
        if self._reads > 1:
            self._fail("second read")
        return self._video.read(frame_indices)


class BrokenSampler(TupleSampler):
    """Draws for 64 frames, with which it is tried, and for no other number."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def __call__(self, num_frames: int, rng: np.random.Generator) -> Any:
        if num_frames != 64:
            raise self.error("by the sampler")
        return super().__call__(num_frames, rng)


class OutsideSampler(TupleSampler):
    def __call__(self, num_frames: int, rng: np.random.Generator) -> Any:
        return super().__call__(num_frames + 500 * (num_frames != 64), rng)


class BrokenTransform(PretrainTransform):
    def __call__(self, clip: Any, rng: Any = None) -> Any:
        raise OSError(errno.EIO, "by the transform")  # of a file of its own, say


class RandomTransform(EvalTransform):
    """Its result depends on everything that was drawn before."""

    def __call__(self, clip: Any, rng: np.random.Generator) -> Any:
        return super().__call__(clip, rng) + int(rng.integers(256))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(faults.PAUSES) == sorted(faults.PAUSES)
    assert sum(faults.PAUSES) < 10
    monkeypatch.setattr(faults, "PAUSES", (0.0, 0.0, 0.0))


def _samples(manifest: Manifest, **changes: Any) -> VideoDataset:
    given: dict[str, Any] = {
        "reader": PyAVReader(),
        "samplers": {"tuples": TupleSampler()},
        "transform": PretrainTransform(size=32),
    }
    return VideoDataset(manifest=manifest, **{**given, **changes})


def _check(fault: CodeFault, who: str, how: str, path: Path) -> None:
    """It names class, place and video, shows the traceback, and survives a way to a process."""
    for one in (fault, pickle.loads(pickle.dumps(fault))):
        said = str(one)
        assert said.startswith(f"{who} ({__file__}:")
        assert said.endswith(f") fails on {path}: {how}")
        assert one.report().startswith(said)
        assert "Traceback (most recent call last)" in one.report()
        assert one.report().endswith(how)


@pytest.mark.parametrize("error", FAULTS)
def test_a_fault_of_a_sampler_is_no_broken_video(
    manifest: Manifest, error: type[Exception]
) -> None:
    with pytest.raises(CodeFault) as info:
        _samples(manifest, samplers={"mine": BrokenSampler(error)})[0, 3]
    how = f"{error.__name__}: {error('by the sampler')}"
    _check(info.value, "BrokenSampler", how, manifest.path(3))


@pytest.mark.parametrize("when", ["open", "count", "read"])
@pytest.mark.parametrize("error", FAULTS)
def test_a_fault_of_a_reader_is_no_broken_video(
    manifest: Manifest, error: type[Exception], when: str
) -> None:
    with pytest.raises(CodeFault) as info:
        _samples(manifest, reader=Failing(error("by the reader"), when=when))[0, 3]
    how = f"{error.__name__}: {error('by the reader')}"
    _check(info.value, "Failing", how, manifest.path(3))


READ: dict[str, Callable[[list[Any]], Any]] = {
    "returns NoneType as a frame": lambda frames: [None for _ in frames],
    "it returns 6$": lambda frames: frames[1:],
    "it returns 8$": lambda frames: frames + frames[:1],
    "not iterable": lambda frames: None,
    "of float32 as a frame": lambda frames: [f.astype(np.float32) / 255 for f in frames],
    "of uint8 as a frame, not": lambda frames: [f.transpose(2, 0, 1) for f in frames],
    "Tensor .* as a frame": lambda frames: [torch.tensor(f) for f in frames],
    "which is empty": lambda frames: [f[:0] for f in frames],
}


class Giving(Failing):
    """A reader that makes something else of the frames."""

    def __init__(self, change: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.change = change

    @contextmanager
    def open(self, path: Path, *, num_frames: int | None = None) -> Iterator[Any]:
        with super().open(path, num_frames=num_frames) as video:
            read = video.read
            video.read = lambda indices: self.change(read(indices))
            yield video


@pytest.mark.parametrize("how", READ)
def test_frames_of_no_use_are_the_readers_fault(manifest: Manifest, how: str) -> None:
    for samples, key in (
        (_samples(manifest, reader=Giving(READ[how])), (0, 3)),
        (
            FramesDataset(
                manifest=manifest,
                reader=Giving(READ[how]),
                transform=EvalTransform(size=32, resize=32),
                num_frames=7,
            ),
            3,
        ),
    ):
        with pytest.raises(CodeFault, match=how) as info:
            samples[key]  # type: ignore[index]
        assert str(info.value).startswith(f"Giving ({__file__}:")
        assert f" fails on {manifest.path(3)}: " in str(info.value)


MADE: dict[str, Callable[[torch.Tensor], Any]] = {
    "NoneType": lambda clip: None,
    "ndarray": lambda clip: clip.numpy(),
    "of float32": lambda clip: clip / 255,
    "30, 30": lambda clip: clip[..., 1:31, 1:31],
    r" \((1, )?1, 1, 32, 32\)": lambda clip: clip[-1:, :1] if clip.ndim == 4 else clip[:, -1:],
}


class Made(EvalTransform):
    """A transform that makes something else of the pictures."""

    num_views = 1

    def __init__(self, change: Callable[[torch.Tensor], Any], *, views: bool = False) -> None:
        super().__init__(size=32, resize=32)
        self.__dict__.update(change=change, views=views)

    def __call__(self, clip: Any, rng: Any = None) -> Any:
        made = super().__call__(clip, rng)
        return self.__dict__["change"](made[None] if self.__dict__["views"] else made)


@pytest.mark.parametrize("how", MADE)
def test_pictures_of_no_use_are_the_transforms_fault(manifest: Manifest, how: str) -> None:
    """A dataset that copies them into a tensor would take them for others, without a word."""
    given = {"manifest": manifest, "reader": PyAVReader()}
    datasets: list[Any] = [
        _samples(manifest, transform=Made(MADE[how])),
        FramesDataset(**given, transform=Made(MADE[how])),  # type: ignore[arg-type]
        CentresDataset(**given, transform=Made(MADE[how], views=True)),  # type: ignore[arg-type]
    ]
    for dataset, key in zip(datasets, [(0, 3), 3, 3], strict=True):
        with pytest.raises(CodeFault, match=how) as info:
            dataset[key]
        assert str(info.value).startswith(f"Made ({__file__}:")
        assert f" fails on {manifest.path(3)}: TypeError: it returns " in str(info.value)


class Drawing(TupleSampler):
    """Changes what it draws for another number of frames than the one with which it is tried."""

    def __init__(self, change: Callable[[Any], Any], tried: int = 64) -> None:
        super().__init__()
        self.__dict__.update(change=change, tried=tried)

    def __call__(self, num_frames: int, rng: np.random.Generator) -> Any:
        drawn = super().__call__(num_frames, rng)
        return drawn if num_frames == self.__dict__["tried"] else self.__dict__["change"](drawn)


def _half(drawn: Any) -> Any:
    drawn.frame_indices["anchor"] = drawn.frame_indices["anchor"] + 0.5
    return drawn


def _fewer(drawn: Any) -> Any:
    drawn.rows["x2"] = drawn.rows["x2"][:0]
    return drawn


def _short(drawn: Any) -> Any:
    drawn.frame_indices["positive"] = drawn.frame_indices["positive"][:2]
    return drawn


@pytest.mark.parametrize("change", [_half, _fewer, _short, lambda drawn: None])
def test_a_draw_of_no_use_is_the_samplers_fault(manifest: Manifest, change: Any) -> None:
    with pytest.raises(CodeFault, match=r"^Drawing \(.*test_faults.py:\d+\) fails on ") as info:
        _samples(manifest, samplers={"mine": Drawing(change)})[0, 3]
    assert str(manifest.path(3)) in str(info.value)


def test_a_sampler_that_fails_when_it_is_tried_is_at_fault(manifest: Manifest) -> None:
    with pytest.raises(CodeFault, match=r"Drawing .* fails: AttributeError"):
        _samples(manifest, samplers={"mine": Drawing(lambda drawn: None, tried=-1)})


def test_frames_that_there_are_not_are_the_samplers_fault(manifest: Manifest) -> None:
    with pytest.raises(CodeFault, match=r"OutsideSampler .* fails on .*: IndexError: .* not among"):
        _samples(manifest, samplers={"mine": OutsideSampler()})[0, 3]


def test_every_data_set_blames_its_transform(manifest: Manifest) -> None:
    broken = BrokenTransform(size=32)
    how = {"manifest": manifest, "reader": PyAVReader(), "transform": broken}
    datasets: list[Any] = [_samples(manifest, transform=broken)]
    datasets += [FramesDataset(**how), CentresDataset(**how)]  # type: ignore[arg-type]
    for dataset, key in zip(datasets, [(0, 3), 3, 3], strict=True):
        with pytest.raises(CodeFault) as info:
            dataset[key]
        _check(info.value, "BrokenTransform", BY_TRANSFORM, manifest.path(3))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_it_arrives_from_a_worker_with_its_place(manifest: Manifest, num_workers: int) -> None:
    loader = BatchLoader(
        _samples(manifest, transform=BrokenTransform(size=32)),
        [[(0, 3)]],
        WorkerOptions(num_workers=num_workers),
    )
    with pytest.raises(CodeFault) as info:
        list(loader)
    _check(info.value, "BrokenTransform", BY_TRANSFORM, manifest.path(3))


@pytest.mark.parametrize(
    "error",
    [
        VideoError("cut off"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "not allowed"),
        MemoryError(),
        av.error.InvalidDataError(1094995529, "Invalid data"),
    ],
)
def test_what_is_wrong_with_a_file_is_not_tried_again(manifest: Manifest, error: Exception) -> None:
    reader = Failing(error)
    sample = _samples(manifest, reader=reader)[0, 3]
    assert [one["video_id"] for one in sample["rejected"]] == [3]
    assert sample["video_id"] != 3
    assert reader.opened == 2  # the video, and another in its place


@pytest.mark.parametrize("when", ["open", "count", "read"])
@pytest.mark.parametrize(
    "error",
    [
        *(OSError(getattr(errno, n), n) for n in ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN")),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("of a store"),
        TransientError("of a store"),
        fsspec.exceptions.FSTimeoutError(),
    ],
    ids=lambda error: f"{type(error).__name__}{getattr(error, 'errno', '')}",
)
def test_what_may_pass_is_tried_again(manifest: Manifest, error: Exception, when: str) -> None:
    truth = _samples(manifest)[2, 3]
    for times in (1, 3, 4):
        reader = Failing(*[error] * times, when=when)
        sample = _samples(manifest, reader=reader)[2, 3]
        assert reader.opened == times + 1
        if times < 4:
            assert not sample["rejected"]
            for name, pictures in truth["views"].items():
                assert torch.equal(sample["views"][name], pictures)
        else:
            assert [one["video_id"] for one in sample["rejected"]] == [3]
            substitute = _samples(manifest, reader=Failing(VideoError("cut off")))[2, 3]
            assert sample["video_id"] == substitute["video_id"]
            for name, pictures in substitute["views"].items():
                assert torch.equal(sample["views"][name], pictures)


def test_clips_read_again_are_converted_as_if_at_once(manifest: Manifest) -> None:
    """Also where some were converted, with random numbers, before reading failed."""
    transform = RandomTransform(size=32)
    frames = [
        FramesDataset(
            manifest=manifest, reader=reader, transform=transform, num_frames=20, frames_per_clip=8
        )[0]["frames"]
        for reader in (PyAVReader(), Failing(OSError(errno.EIO, "once"), when="second read"))
    ]
    assert torch.equal(*frames)


def test_ffmpeg_says_input_output_error_of_files_cut_off_too() -> None:
    assert not is_transient(av.error.OSError(errno.EIO, "Input/output error"))
    assert is_transient(av.error.TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
    error = VideoError("cannot be read")
    error.__cause__ = OSError(errno.EIO, "Input/output error")
    assert is_transient(error)


def test_the_work_of_other_processes_is_judged_likewise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_worker.py").write_text(
        "from vclr_lightning.data import faults\n"
        "from vclr_lightning.data.protocols import VideoError\n"
        "faults.PAUSES = ()\n"
        "def find(name):\n"
        "    if name == 'bad': raise VideoError('cut off')\n"
        "    if name == 'torn': raise OSError(5, 'Input/output error')\n"
        "    if name == 'odd': raise TypeError('of this code')\n"
        "    return {'name': name}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(faults, "PAUSES", ())
    my_worker = importlib.import_module("my_worker")

    def answers(*names: str) -> list[Answer]:
        found, _ = run_job(
            my_worker.find,
            {name: name for name in names},
            known=lambda _: None,
            finish=lambda _, answer: answer,
            executor=None,
            default=partial(LocalProcesses, 1),
            title="finding",
            show=False,
        )
        return found

    assert answers("good", "bad", "torn") == [
        Answer({"name": "good"}),
        Answer(reason="cut off"),
        Answer(reason="OSError: [Errno 5] Input/output error", transient=True),
    ]
    with pytest.raises(CodeFault, match=r"find \(.*my_worker\.py:7\) fails on odd: TypeError") as e:
        answers("good", "odd")
    assert "raise TypeError('of this code')" in e.value.report()


def test_commands_say_whose_code_failed_and_show_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        with faults.blaming(broken, "a.mp4"):
            raise ValueError("of this code")

    monkeypatch.setattr(train, "_TRACEBACKS", False)
    with pytest.raises(SystemExit) as info, train._errors_reported():
        broken()
    monkeypatch.setattr(cli, "_dispatch", broken)
    assert (info.value.code, cli.main([])) == (1, 1)
    for said in capsys.readouterr().err.split("error: ")[1:]:
        assert "broken" in said.splitlines()[0]
        assert said.splitlines()[0].endswith("fails on a.mp4: ValueError: of this code")
        assert 'raise ValueError("of this code")' in said


def test_mistakes_of_the_user_stay_theirs(manifest: Manifest) -> None:
    with pytest.raises(UserError, match="give another"):
        _samples(manifest, reader=Failing(UserError("give another")))[0, 3]
    sample = _samples(manifest, transform=_Refusing(size=32), replace=False)[0, 3]
    assert sample["rejected"][0]["reason"] == "the size changes"


class _Refusing(PretrainTransform):
    def __call__(self, clip: Any, rng: np.random.Generator) -> Any:
        raise VideoError("the size changes")


def test_causes_that_are_a_ring_end() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]
