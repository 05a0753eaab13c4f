"""Tables that are kept change no frame, whatever they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.readers.sources import Content, FilePart
from vclr_lightning.data.readers.tables import TableStore

X264 = {"preset": "ultrafast", "g": "12"}
KINDS: dict[str, dict[str, Any]] = {
    "mp4": {"suffix": ".mp4", "codec": "libx264", "options": X264},
    "mp4 open groups": {
        "suffix": ".mp4",
        "codec": "libx264",
        "options": X264 | {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"},
    },
    "mkv": {"suffix": ".mkv", "codec": "libx264", "options": X264 | {"bf": "3"}},
    "mkv live": {
        "suffix": ".mkv",
        "codec": "libx264",
        "options": X264,
        "container": {"live": "1"},
    },
    "avi": {"suffix": ".avi", "codec": "mpeg4", "options": {"g": "12"}},
    "vp8": {"suffix": ".webm", "codec": "libvpx", "options": {"deadline": "realtime"}},
    "ts": {"suffix": ".ts", "codec": "libx264", "options": X264},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_table_reads_the_same_frames(
    kind: str, video: Callable[..., Path], plain: Callable[[Path], list[Any]], tmp_path: Path
) -> None:
    path = video(**KINDS[kind])
    truth = plain(path)
    reader = PyAVReader(tables=TableStore(tmp_path / "tables", least=1))
    rng = np.random.default_rng(0)
    for _ in range(3):
        with PyAVReader().open(path) as fresh, reader.open(path) as opened:
            assert opened.num_frames == fresh.num_frames == len(truth)
            for _ in range(4):
                ranks = rng.integers(0, len(truth), 4)
                for rank, frame in zip(ranks, opened.read(ranks), strict=True):
                    np.testing.assert_array_equal(frame, truth[rank])
                fresh.read(ranks)
            assert opened.by_plan is fresh.by_plan
            np.testing.assert_array_equal(opened.times(), fresh.times())
    assert len(list((tmp_path / "tables").iterdir())) == 1


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_wrong_table_changes_nothing(
    kind: str, video: Callable[..., Path], plain: Callable[[Path], list[Any]], tmp_path: Path
) -> None:
    path, other = video(**KINDS[kind]), video(**KINDS[kind] | {"size": (64, 48)})
    tables = tmp_path / "tables"
    store = TableStore(tables, least=1)
    for file in (path, other):
        with PyAVReader(tables=store).open(file) as opened:
            opened.read([0])
    one, two = sorted(tables.iterdir())
    swapped = one.read_bytes(), two.read_bytes()
    middle = len(swapped[0]) // 2  # of the compressed numbers
    broken = swapped[0][:middle] + b"\xff" * 40 + swapped[0][middle + 40 :]
    for content in ((swapped[1], swapped[0]), (b"no table", b""), (broken, broken)):
        one.write_bytes(content[0])
        two.write_bytes(content[1])
        for file in (path, other):
            with PyAVReader(tables=store).open(file) as opened:
                np.testing.assert_array_equal(
                    opened.read([3, 40]), [plain(file)[k] for k in (3, 40)]
                )


def test_what_is_kept(video: Callable[..., Path], tmp_path: Path) -> None:
    path = video(**KINDS["mp4"])
    content = path.read_bytes()
    folder = tmp_path / "tables"

    def opened(source: Any, **how: int) -> int:
        with PyAVReader(tables=TableStore(folder, **how)).open(source) as video:
            video.read([1, 30])
        return len(list(folder.iterdir())) if folder.exists() else 0

    assert opened(path) == 0  # short
    assert opened(Content(content), least=1) == 0
    assert opened(path, least=1) == 1
    assert opened(path, least=1) == 1
    changed = tmp_path / "changed.mp4"
    changed.write_bytes(content)
    (first,) = folder.iterdir()
    assert opened(changed, least=1, most=1) == 1  # full: the oldest goes
    assert not first.exists()
    assert opened(path, least=1, most=2) == 2
    assert opened(FilePart(changed, 0, len(content)), least=1) == 3
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    with PyAVReader(tables=TableStore(folder, least=1)).open(path) as video_:
        assert len(video_.read([1, 30])) == 2
