"""Generate the synthetic data set: videos of eight actions, and untrimmed ones with known spans."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.core.reading import read_record, write_record
from vclr_lightning.data.jobs import Answer, LocalProcesses, SerialExecutor, cores, run_job
from vclr_lightning.data.prepare.video_writer import remove_partial, write_video
from vclr_lightning.data.synthetic.actions import ACTIONS
from vclr_lightning.data.synthetic.scenes import draw_progress, render

_VERSION = 3  # of the files' content
_RECORD = "synthetic.json"
_PER_PROCESS = 8  # videos worth the start of a process
_SECONDS = (2.0, 4.0)
_IDLE_SECONDS = (1.5, 4.0)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    train: int
    val: int
    untrimmed: int
    seed: int
    size: int
    fps: int
    contrast: float


def generate(
    root: str | Path,
    *,
    train: int = 100,
    val: int = 50,
    untrimmed: int = 16,
    seed: int = 0,
    size: int = 48,
    fps: int = 12,
    contrast: float = 0.12,
    workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Write the data set below ``root``, unless it exists.

    ``videos/train/ACTION/*.mp4`` and ``videos/val/ACTION/*.mp4`` show one action each, of 2 to 4
    seconds. Every few frames a video cuts to another scene with random background, colours, place,
    size and outline, so neither a single frame nor the appearance of a video identifies the action.
    In every scene water rises behind the object, from nearly nothing to over half of the height: a
    single frame shows when it is, as in videos in which something fills up, burns down or is built.
    ``untrimmed/*.mp4`` show empty scenes with one or two actions, whose times are in
    ``untrimmed/annotations.json`` in ActivityNet's form.

    Args:
        root: the folder to write.
        train: training videos of each action.
        val: held-out videos of each action.
        untrimmed: untrimmed videos.
        seed: the same seed gives the same frames.
        size: height and width in pixels, even.
        fps: frames per second.
        contrast: of the background's texture, 0 to 1.
        workers: processes, at most; by default one per core. With 1, none is started.
        progress: whether to show a progress bar.

    Returns:
        The folder of the labelled videos, ``root/videos``.

    Raises:
        UserError: a value is out of range, or ``root`` holds a set made with other values.
    """
    plan = _Settings(
        train=train,
        val=val,
        untrimmed=untrimmed,
        seed=seed,
        size=size,
        fps=fps,
        contrast=contrast,
    )
    _check(plan)
    root = Path(root).absolute()
    made = {"version": _VERSION, **asdict(plan)}
    record = root / _RECORD
    if (known := read_record(record)) is not None:
        if known != made:
            raise UserError(
                f"{root} holds a synthetic set made with other values or by another version; give "
                "another folder, or remove that one"
            )
        return root / "videos"
    names = [
        f"videos/{split}/{action}/{action}_{number:04d}.mp4"
        for split, count in (("train", train), ("val", val))
        for number in range(count)
        for action in ACTIONS
    ]
    names += [f"untrimmed/untrimmed_{number:04d}.mp4" for number in range(untrimmed)]
    for folder in {(root / name).parent for name in names}:
        remove_partial(folder)

    def finish(path: Path, answer: Answer) -> tuple[str, _Span]:
        if answer.values is None:
            raise UserError(f"cannot make {path}: {answer.reason}; give fewer workers")
        return path.stem, dict(answer.values)

    made_all, _ = run_job(
        partial(_make, plan=plan),
        {name: root / name for name in names},
        known=lambda _: None,
        finish=finish,
        executor=None,
        default=(
            SerialExecutor
            if (workers or cores()) == 1 or len(names) <= _PER_PROCESS
            else partial(LocalProcesses, workers or cores(), calls_per_process=_PER_PROCESS)
        ),
        title="making videos",
        show=progress,
    )
    spans = {stem: span for stem, span in made_all if span}
    with replacing(root / "untrimmed" / "annotations.json") as sink:
        sink.write(json.dumps({"database": dict(sorted(spans.items()))}, indent=1).encode())
    write_record(record, made)
    return root / "videos"


def _check(plan: _Settings) -> None:
    for name in ("train", "val", "fps"):
        if getattr(plan, name) < 1:
            raise UserError(f"{name}={getattr(plan, name)} must be at least 1")
    if plan.untrimmed < 0 or plan.seed < 0:
        raise UserError("untrimmed and seed must be at least 0")
    if plan.size < 16 or plan.size % 2:
        raise UserError(f"size={plan.size} must be even and at least 16 pixels")
    if not 0 <= plan.contrast <= 1:
        raise UserError(f"contrast={plan.contrast} must be between 0 and 1")


_Span = dict[str, Any]


def _make(path: Path, plan: _Settings) -> _Span:
    number = int(path.stem.rpartition("_")[2])
    if path.parent.name == "untrimmed":
        return _write_untrimmed(path, plan, number)
    action, split = path.parent.name, path.parent.parent.name
    rng = numpy_generator(plan.seed, "synthetic", split, action, number)
    num_frames = round(rng.uniform(*_SECONDS) * plan.fps)
    steps = [(action, float(p)) for p in draw_progress(rng, num_frames)]
    frames = render(steps, rng, size=plan.size, contrast=plan.contrast)
    write_video(path, frames, fps=plan.fps)
    return {}


def _write_untrimmed(path: Path, plan: _Settings, number: int) -> _Span:
    rng = numpy_generator(plan.seed, "synthetic", "untrimmed", number)

    def idle() -> list[None]:
        return [None] * round(rng.uniform(*_IDLE_SECONDS) * plan.fps)

    steps: list[tuple[str, float] | None] = [*idle()]
    annotations = []
    for _ in range(int(rng.integers(1, 2, endpoint=True))):
        action = str(rng.choice(list(ACTIONS)))
        begin = len(steps)
        num_frames = round(rng.uniform(*_SECONDS) * plan.fps)
        steps += [(action, float(p)) for p in draw_progress(rng, num_frames)]
        segment = [begin / plan.fps, len(steps) / plan.fps]
        annotations.append({"segment": segment, "label": action})
        steps += idle()
    frames = render(steps, rng, size=plan.size, contrast=plan.contrast)
    write_video(path, frames, fps=plan.fps)
    return {
        "duration": len(steps) / plan.fps,
        "subset": "validation" if number % 4 == 3 else "training",
        "annotations": annotations,
    }
