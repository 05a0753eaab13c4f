"""Tables that are kept change no frame, whatever they say."""

from __future__ import annotations

import hashlib
import io
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vclr_lightning.data.readers import PyAVReader, TableStore
from vclr_lightning.data.readers.opening import FilePart, InMemory, WholeFile
from vclr_lightning.data.readers.packets import GroupIndex

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
                indices = rng.integers(0, len(truth), 4)
                for index, frame in zip(indices, opened.read(indices), strict=True):
                    np.testing.assert_array_equal(frame, truth[index])
                fresh.read(indices)
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
    swapped = two.read_bytes(), one.read_bytes()
    for content in (swapped, (b"no table", b"")):
        one.write_bytes(content[0])
        two.write_bytes(content[1])
        for file in (path, other):
            assert store.load(WholeFile(file)) is None
            with PyAVReader(tables=store).open(file) as opened:
                np.testing.assert_array_equal(
                    opened.read([3, 40]), [plain(file)[k] for k in (3, 40)]
                )


def _forged(name: str, numbers: np.ndarray[Any, Any]) -> bytes:
    """What has a right checksum all the same."""
    content = zlib.compress(numbers.astype(np.int64).tobytes(), 9)
    return hashlib.sha256(name.encode() + content).digest() + content


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_a_file_it_raises_nothing_and_changes_no_frame(
    kind: str,
    video: Callable[..., Path],
    plain: Callable[[Path], list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    path = video(**KINDS[kind])
    store = TableStore(tmp_path_factory.getbasetemp() / f"tables {kind}", least=1)
    with PyAVReader(tables=store).open(path) as opened:
        opened.read([0])
    (file,) = store._folder.iterdir()
    whole = file.read_bytes()
    how = data.draw(st.sampled_from(["flip", "cut", "random", "more", "old"]))
    if how == "flip":
        bits = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            bits[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        content = bytes(bits)
    elif how == "cut":
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif how == "random":
        content = data.draw(st.binary(max_size=300))
    elif how == "more":
        content = whole + data.draw(st.binary(min_size=1, max_size=9))
    else:  # of an earlier version
        with io.BytesIO() as sink:
            np.savez_compressed(sink, times=np.arange(50), starts=np.zeros(1, np.int64))
            content = sink.getvalue()
    file.write_bytes(content)
    try:
        assert store.load(WholeFile(path)) is None or content == whole
        with PyAVReader(tables=store).open(path) as opened:
            assert opened.num_frames == 50
            np.testing.assert_array_equal(opened.read([49])[0], plain(path)[49])
        assert file.read_bytes() == whole  # and it is put right
    finally:
        file.write_bytes(whole)


def test_forged_tables_and_bombs_take_little_memory(
    video: Callable[..., Path], tmp_path: Path
) -> None:
    path = video(**KINDS["mkv"])
    store = TableStore(tmp_path, least=1)
    with PyAVReader(tables=store).open(path) as opened:
        opened.read([0])
    (file,) = tmp_path.iterdir()
    bomb = np.zeros(40_000_000)  # 320 MB, in 300 kB
    for numbers in (bomb, np.ones(3), np.ones(5), np.arange(9), np.zeros(0), np.zeros(1)):
        file.write_bytes(_forged(file.name, numbers))
        tracemalloc.start()
        store.load(WholeFile(path))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 200 * 2**20
    with file.open("wb") as hole:
        hole.truncate(2**40)
    assert store.load(WholeFile(path)) is None


def _listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every listing of a folder from now on."""
    seen: list[str] = []
    for name in ("listdir", "scandir"):
        real = getattr(os, name)

        def counted(folder: Any, real: Any = real) -> Any:
            seen.append(str(folder))
            return real(folder)

        monkeypatch.setattr(os, name, counted)
    return seen


@pytest.mark.parametrize("full", [0, 99, 100, 1000])
def test_what_a_miss_costs_does_not_depend_on_how_full_the_store_is(
    full: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for number in range(full):
        (tables / f"{number}.table").touch()
    store = TableStore(tables, least=1, most=100)
    seen = _listings(monkeypatch)
    for number in range(50):
        file = tmp_path / f"{number}.mp4"
        file.touch()
        assert store.load(WholeFile(file)) is None
        store.keep(WholeFile(file), GroupIndex([0, 1, 2], [0]))
    assert len(seen) == 5
    monkeypatch.undo()
    assert len(list(tables.iterdir())) == max(full, min(100, full + 50))


def test_a_full_store_lets_the_oldest_go_in_one_batch(tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for number in range(100):
        (tables / f"{number:02}.table").touch()
        age = time.time() - 3600 * (48 if number < 5 else 2)
        os.utime(tables / f"{number:02}.table", (age, age))
    store = TableStore(tables, least=1, most=100)
    for number in range(20):
        file = tmp_path / f"{number}.mp4"
        file.touch()
        store.keep(WholeFile(file), GroupIndex([0, 1, 2], [0]))
    left = {file.stem for file in tables.iterdir()}
    assert len(left) == 100
    assert left & {f"{number:02}" for number in range(100)} == {f"{n:02}" for n in range(5, 100)}


def test_what_is_kept(video: Callable[..., Path], tmp_path: Path) -> None:
    path = video(**KINDS["mp4"])
    content = path.read_bytes()
    folder = tmp_path / "tables"

    def opened(source: Any, **how: int) -> int:
        with PyAVReader(tables=TableStore(folder, **how)).open(source) as video:
            video.read([1, 30])
        return len(list(folder.iterdir())) if folder.exists() else 0

    assert opened(path) == 0  # short
    assert opened(InMemory(content), least=1) == 0
    assert opened(path, least=1) == 1
    assert opened(path, least=1) == 1
    changed = tmp_path / "changed.mp4"
    changed.write_bytes(content)
    (first,) = folder.iterdir()
    assert opened(changed, least=1, most=1) == 1  # full
    assert first.exists()
    os.utime(first, (0, 0))
    assert opened(changed, least=1, most=1) == 1  # and the oldest is old
    assert not first.exists()
    assert opened(path, least=1, most=2) == 2
    assert opened(FilePart(changed, 0, len(content)), least=1) == 3
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    with PyAVReader(tables=TableStore(folder, least=1)).open(path) as video_:
        assert len(video_.read([1, 30])) == 2
