"""What tests of several parts share: small real videos, reference proposals."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from multiprocessing.util import Finalize
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from vclr_lightning.data.prepare.video_writer import x264_options

if find_spec("torch"):  # the readers' tests run without it, too
    import torch

    torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

CLASSES = ("grow", "left", "right")
CLIPS = 6

WriteVideo = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """Let temporary files of examples and child processes lie in one folder, gone at the end."""
    if hasattr(config, "workerinput"):
        return  # a worker of pytest-xdist inherits TMPDIR
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays there
    folder = tempfile.mkdtemp(prefix="vclr-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    # Last of all: multiprocessing removes a folder of its own in it at -100.
    Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-200)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what a test leaves in the environment, as Lightning's launchers do (MASTER_PORT)."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def random_dense() -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Proposals and annotated segments whose AR@AN other people's evaluation has computed."""
    folder = Path(__file__).parent / "reference"
    results = json.loads((folder / "g6_random_dense_proposals.json").read_text())["results"]
    truth = json.loads((folder / "g6_random_dense_gt.json").read_text())["database"]
    proposals = [np.array([[*p["segment"], p["score"]] for p in results[name]]) for name in truth]
    truths = [np.array([a["segment"] for a in truth[name]["annotations"]]) for name in truth]
    return proposals, truths


@pytest.fixture(scope="session")
def write_video() -> WriteVideo:
    """``write_video(path, frames, fps=10, gop=8)`` writes ``(H, W, 3)`` RGB frames as H.264."""

    def write(
        path: Path, frames: Sequence[NDArray[np.uint8]], *, fps: int = 10, gop: int = 8
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            options = x264_options(crf=16, keyframe_every=gop) | {"bf": "3"}
            stream = container.add_stream("libx264", rate=fps, options=options)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


def draw_frames(kind: str, seed: int) -> list[NDArray[np.uint8]]:
    """Draw 20 to 40 frames of 64 x 48: a square that grows, or moves left or right, over noise."""
    rng = np.random.default_rng([CLASSES.index(kind), seed])
    count = int(rng.integers(20, 41))
    coarse = rng.integers(40, 160, (6, 8, 3))
    background = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    colour = rng.integers(160, 256, 3).astype(np.uint8)
    row = int(rng.integers(4, 24))
    frames = []
    for time in np.linspace(0, 1, count):
        size = 4 + int(20 * time) if kind == "grow" else 14
        column = {"grow": 20, "left": int(48 * (1 - time)), "right": int(48 * time)}[kind]
        frame = background.copy()
        frame[row : row + size, column : column + size] = colour
        frames.append(frame)
    return frames


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory, write_video: WriteVideo) -> Path:
    """A folder of 3 classes x 6 clips, ``grow/grow_g00_c00.mp4``; two clips make a group."""
    root = tmp_path_factory.mktemp("videos")
    for kind in CLASSES:
        for clip in range(CLIPS):
            name = f"{kind}_g{clip // 2:02}_c{clip % 2:02}.mp4"
            write_video(root / kind / name, draw_frames(kind, clip))
    return root


@pytest.fixture(scope="session")
def indexed(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """``indexed(cache)`` makes a cache with the index of the videos, as after an earlier run.

    Without it, a command starts processes that look into them.
    """
    from vclr_lightning.data.indexing import ensure_manifest

    made = tmp_path_factory.mktemp("indexed")
    ensure_manifest(video_folder, cache_dir=made / "vclr_lightning", show=False)

    def copy(cache: Path) -> str:
        return str(shutil.copytree(made, cache, dirs_exist_ok=True))

    return copy


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos that ``VCLR_TEST_DATA`` names; skips where it names none."""
    folder = os.environ.get("VCLR_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real videos: VCLR_TEST_DATA names no folder")
    return Path(folder)
