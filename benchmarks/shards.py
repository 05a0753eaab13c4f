"""Videos out of shards: ours, litdata's and WebDataset's reading against plain files.

    python -m benchmarks.shards

Copies of one video (10 s, 340x256, 30 fps, H.264, a keyframe every 12 frames, and keyframes alone)
are stored in each form. A call draws a video and 3 + 3 of its frames by their indices, and decodes
them with the same reader. WebDataset has no access by row; it yields the next video in its own
order, from a shuffle buffer. The second table shows what CPU time does not: bytes on the disk,
bytes that a new worker fetches from a store for its first video, and the growth of its private
memory while it reads 200 videos.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.decode import draw, make_clips
from benchmarks.timing import Comparison, compare, report
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.manifest.shard_paths import shard_place
from vclr_lightning.data.readers import PyAVReader, ShardReader
from vclr_lightning.data.readers.opening import InMemory
from vclr_lightning.data.shards import pack

FILES, OURS, LITDATA, WEBDATASET = "plain files", "vclr shard", "litdata", "WebDataset"
KINDS = ("g12", "intra")
SHARD = 64 * 2**20  # bytes, what litdata and WebDataset take
BUFFER = 100  # videos that WebDataset shuffles
CALLS = 4  # of different draws
READS = 200

Read = Callable[[int], object]


def _row(number: int, videos: int) -> int:
    return int(np.random.default_rng([7, number % 2**32]).integers(videos))


def _files(manifest: Manifest) -> Read:
    reader = PyAVReader()

    def run(number: int) -> object:
        with reader.open(manifest.path(_row(number, len(manifest)))) as video:
            return video.read(draw(number))

    return run


def _ours(manifest: Manifest) -> Read:
    reader = ShardReader()

    def run(number: int) -> object:
        with reader.open(manifest.path(_row(number, len(manifest)))) as video:
            return video.read(draw(number))

    return run


def _litdata(folder: Path) -> Read:
    from litdata import StreamingDataset

    reader = PyAVReader()
    dataset = StreamingDataset(str(folder))
    videos = len(dataset)

    def run(number: int) -> object:
        with reader.open(InMemory(dataset[_row(number, videos)]["video"])) as video:
            return video.read(draw(number))

    return run


def _webdataset(shards: Path) -> Read:
    import webdataset

    reader = PyAVReader()
    names = [str(file) for file in sorted(shards.glob("*.tar"))]
    dataset = webdataset.WebDataset(names, shardshuffle=len(names), seed=0, empty_check=False)
    samples = iter(dataset.shuffle(BUFFER).repeat())

    def run(number: int) -> object:
        with reader.open(InMemory(next(samples)["mp4"])) as video:
            return video.read(draw(number))

    return run


def _store(clip: Path, folder: Path, videos: int) -> dict[str, Callable[[], Read]]:
    """Store copies of a clip in each form, and return what begins to read it."""
    (folder / "files").mkdir()
    names = [f"{number:05d}.mp4" for number in range(videos)]
    for name in names:
        shutil.copyfile(clip, folder / "files" / name)
    rows, info = [Row(path=name) for name in names], Info(root=folder / "files")
    manifest = Manifest.load(write_manifest(folder / "files.arrow", rows, info))
    packed = pack(manifest, folder / "ours", shard_size=SHARD, show=False)
    _store_litdata(folder)
    return {
        FILES: partial(_files, manifest),
        OURS: partial(_ours, packed.manifest),
        LITDATA: partial(_litdata, folder / "litdata"),
        WEBDATASET: partial(_webdataset, folder / "ours"),
    }


def _store_litdata(folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder / "litdata"), chunk_bytes=SHARD)
    for number, file in enumerate(sorted((folder / "files").iterdir())):
        writer[number] = {"video": file.read_bytes(), "name": file.name}
    writer.done()
    writer.merge()


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _private() -> int:
    """Return bytes of memory that only this process holds."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private"))


def _growth(begin: Callable[[], Read], answer: Any) -> None:
    PyAVReader()  # common imports do not count
    before = _private()
    read = begin()
    for number in range(READS):
        read(number)
    answer.put(_private() - before)


def _grown(begin: Callable[[], Read]) -> int:
    """Return by how much a process grows that reads."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_growth, args=(begin, answer))
    process.start()
    grown = int(answer.get())
    process.join()
    return grown


def _facts(folder: Path, begun: dict[str, Callable[[], Read]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("case", "MB on the disk", "MB fetched for the first video", "MB of memory"):
        table.add_column(name, justify="left" if name == "case" else "right")
    size = (folder / "files" / "00000.mp4").stat().st_size
    shard = max(file.stat().st_size for file in (folder / "ours").glob("*.tar"))
    place = shard_place(Manifest.load(folder / "ours" / "manifest.arrow").path(0))
    assert place is not None
    chunk = max(file.stat().st_size for file in (folder / "litdata").glob("*.bin"))
    first = {FILES: size, OURS: place.size, LITDATA: chunk, WEBDATASET: min(shard, BUFFER * size)}
    for case, begin in begun.items():
        on_disk = _bytes(folder / {FILES: "files", LITDATA: "litdata"}.get(case, "ours"))
        figures = (on_disk, first[case], _grown(begin))
        table.add_row(case, *(f"{figure / 1e6:.1f}" for figure in figures))
    return table


def measure(repeats: int, videos: int) -> dict[str, Comparison]:
    """Store and read both kinds of video."""
    found: dict[str, Comparison] = {}
    np.ones(2**24, dtype=np.uint8)  # keeps freed memory, as a data worker's batches do
    with tempfile.TemporaryDirectory() as name:
        clips = make_clips(Path(name))
        for kind in KINDS:
            folder = Path(name) / kind
            folder.mkdir()
            begun = _store(clips[kind], folder, videos)
            Console().print(_facts(folder, begun, f"{kind}, {videos} videos"))
            cases = {case: begin() for case, begin in begun.items()}
            found[kind] = compare(
                cases,
                baseline=FILES,
                repeats=repeats,
                calls=dict.fromkeys(cases, CALLS),
                label=kind,
            )
            shutil.rmtree(folder)
    return found


def main() -> int:
    """Measure and print; there is no target to miss."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21, help="rounds that count")
    parser.add_argument("--videos", type=int, default=300, help="in each form")
    options = parser.parse_args()
    return report(measure(options.repeats, options.videos))


if __name__ == "__main__":
    sys.exit(main())
