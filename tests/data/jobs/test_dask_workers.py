"""Jobs on a Dask cluster: the result of one machine, whatever happens to the workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest

from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.indexer import probe_file
from vclr_lightning.data.jobs import (
    Answer,
    FileJournal,
    FileResult,
    SerialExecutor,
    dask_connection,
    dask_workers,
    run_job,
)
from vclr_lightning.data.jobs import attempt as attempts
from vclr_lightning.data.jobs.dask_workers import DaskWorkers
from vclr_lightning.data.manifest import Manifest, Row
from vclr_lightning.data.prepare import Prepared, Recipe, prepare

pytest.importorskip("distributed")

Capture = pytest.CaptureFixture[str]
Write = Callable[..., Path]
PICTURE = np.zeros((48, 64, 3), dtype=np.uint8)
probing = partial(probe_file, root=Path("/"), decode=False, max_damaged=0.1, frames=None)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes with one thread each."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def root(video_folder: Path, write_video: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small videos, of which four are broken in different ways."""
    root = tmp_path_factory.mktemp("the vidéos")
    for file in sorted(video_folder.rglob("*_g0[01]_*.mp4")):
        (root / file.parent.name).mkdir(exist_ok=True)
        shutil.copy(file, root / file.parent.name)
    whole = write_video(root / "grow/cut.mp4", [PICTURE] * 60).read_bytes()
    (root / "grow/cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "grow/empty.mp4").touch()
    (root / "left/text.mp4").write_text("no video at all\n" * 40)
    (root / "left/zeros.mp4").write_bytes(bytes(5000))
    return root


def probe_all(
    paths: list[Path],
    executor: DaskWorkers,
    finish: Callable[[FileResult, Answer], Any] = lambda file, answer: (Path(file.path), answer),
    together: int = 1,
) -> dict[Path, Answer]:
    answers, _ = run_job(
        probing,
        {str(path): FileResult(str(path), -1, -1) for path in paths},
        known=lambda _: None,
        finish=finish,
        together=together,
        executor=executor,
        default=SerialExecutor,
        title="probing",
        show=False,
    )
    return dict(answers)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".mp4", ".tar", ".csv")
    }


def rows_of(file: Path) -> list[Row]:
    """What a manifest says, but for the times of files."""
    return [replace(row, mtime_ns=0) for row in Manifest.load(file).rows()]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def readers_of(pipe: Path) -> list[int]:
    """The other processes that have opened a pipe."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            opened = {os.readlink(entry) for entry in (process / "fd").iterdir()}
            if str(pipe) in opened and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def convert_all(root: Path, out: Path, *options: str) -> Path:
    """Index, prepare, shard and examine the videos."""
    given = ["--max-failed", "0.5", *options]
    prepare = ["prepare", str(root), "--out", str(out / "prepared"), "--short-edge", "32", *given]
    shards = ["shard", str(root), "--out", str(out / "shards"), "--shard-size", "0.02", *given]
    index = ["index", str(root), "--out", str(out / "index/manifest.arrow"), *options]
    doctor = ["doctor", str(root), "--out", str(out / "doctor"), "--no-gain", *options]
    assert [main(words) for words in (prepare, shards, index, doctor)] == [0, 0, 0, 1]
    return out


@pytest.fixture(scope="module")
def local(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine makes of the videos."""
    return convert_all(root, tmp_path_factory.mktemp("local"), "--workers", "1")


def test_the_result_is_that_of_one_machine_though_a_worker_is_killed(
    cluster: Any, root: Path, local: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "prepared/.prepare/journal"
    before = set(cluster.scheduler.workers)

    def kill_one() -> None:
        wait_for(lambda: journal.exists() and journal.stat().st_size > 600)
        os.kill(cluster.workers[0].process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    convert_all(root, tmp_path, "--scheduler", cluster.scheduler_address)
    killer.join()
    assert set(cluster.scheduler.workers) != before
    for part in ("prepared", "shards", "index"):
        assert files_of(tmp_path / part) == files_of(local / part)
        file = f"{part}/manifest.arrow"
        assert rows_of(tmp_path / file) == rows_of(local / file)
        rejected = (tmp_path / part / "manifest.rejected.csv").read_text().splitlines()
        assert len(rejected) == 5
    found = files_of(tmp_path / "doctor")
    assert found == files_of(local / "doctor")
    assert len(found["videos.csv"].splitlines()) == 5
    examined = [
        (folder / "doctor/doctor.json").read_text().replace(str(folder), "")
        for folder in (tmp_path, local)
    ]
    assert examined[0] == examined[1]
    assert len(list((local / "prepared").rglob("*.mp4"))) == 12
    assert len(list((local / "shards").glob("*.tar"))) > 2
    assert not list(tmp_path.rglob(".shared.*"))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe in place of a video: whoever reads it waits, and can be killed meanwhile."""
    os.mkfifo(tmp_path / "b.mp4")
    return tmp_path / "b.mp4"


@pytest.mark.parametrize(
    ("killed", "answer"),
    [
        ("worker", None),
        ("process", Answer(reason="the decoder crashed (SIGSEGV)")),
        (
            "all workers",
            Answer(reason="the Dask worker that reads it was lost, 1 times", transient=True),
        ),
    ],
)
def test_a_video_that_kills_is_rejected_and_a_lost_worker_replaced(
    killed: str, answer: Answer | None, cluster: Any, pipe: Path, root: Path, write_video: Write
) -> None:
    good = write_video(pipe.with_name("a.mp4"), [PICTURE] * 8)

    def kill() -> None:
        with pipe.open("wb"):  # returns when a process of a worker has opened it
            (reader,) = readers_of(pipe)
            worker = parent_of(reader)
            pipe.unlink()
            shutil.copy(good, pipe)
            if killed == "process":
                os.kill(reader, signal.SIGSEGV)
            else:
                os.kill(worker, signal.SIGKILL)

    allowed = cluster.scheduler.allowed_failures
    cluster.scheduler.allowed_failures = 0 if killed == "all workers" else allowed
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with DaskWorkers(cluster.scheduler_address) as executor:
            together = 3 if killed == "process" else 1
            others = [good, pipe.parent]
            if killed == "all workers":  # or those that wait on the same worker were given up, too
                answers = probe_all([pipe], executor) | probe_all(others, executor)
            else:
                answers = probe_all([pipe, *others], executor, together=together)
    finally:
        cluster.scheduler.allowed_failures = allowed
    killer.join()
    assert answers[good].values is not None
    assert answers[pipe] == (answers[good] if answer is None else answer)
    assert answers[pipe.parent].reason  # no video


def test_a_time_limit_holds_on_the_workers(cluster: Any, pipe: Path) -> None:
    with DaskWorkers(cluster.scheduler_address, limit=2) as executor, pipe.open("r+b", buffering=0):
        answers = probe_all([pipe], executor)
    assert answers[pipe] == Answer(reason="takes longer than 2 s to read")


def test_a_stop_ends_what_runs(cluster: Any, pipe: Path, root: Path) -> None:
    good = next(root.rglob("left_*.mp4"))
    kept = []

    def interrupted(file: FileResult, answer: Answer) -> None:
        kept.append(file.path)
        wait_for(lambda: readers_of(pipe))
        raise KeyboardInterrupt

    with (
        pipe.open("r+b", buffering=0),
        pytest.raises(KeyboardInterrupt),
        DaskWorkers(cluster.scheduler_address) as executor,
    ):
        probe_all([good, pipe], executor, interrupted)
    assert kept == [str(good)]
    wait_for(lambda: not readers_of(pipe))


def test_what_is_done_before_a_stop_is_kept(
    cluster: Any, root: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    add = FileJournal.add
    done: list[str] = []

    def stopping(journal: FileJournal, result: FileResult) -> None:
        if journal._file.name == "journal":  # not that of the index
            if len(done) == 3:
                raise KeyboardInterrupt
            done.append(result.path)
        add(journal, result)

    def run() -> Prepared:
        with DaskWorkers(cluster.scheduler_address) as executor:
            return prepare(
                root, out, Recipe(short_edge=32), executor=executor, measure=False, show=False
            )

    with monkeypatch.context() as patched:
        patched.setattr(FileJournal, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            run()
    written = {path: (out / path).stat().st_mtime_ns for path in done}
    assert run().earlier == 3
    assert {path: (out / path).stat().st_mtime_ns for path in done} == written
    assert files_of(out) == files_of(local / "prepared")


def test_workers_must_see_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the source and one that is new in the result, before anything is rejected."""
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    video.touch()
    out.mkdir()
    seen: list[str] = []
    hidden = video
    exists = os.path.lexists

    def look(path: str) -> bool:
        seen.append(path)
        return exists(path) and not Path(path).is_relative_to(hidden)

    monkeypatch.setattr(attempts, "PAUSES", (0.0,))
    monkeypatch.setattr(attempts.os.path, "lexists", look)
    for hidden in (video, out):
        with pytest.raises(UserError, match=f"does not see {hidden}.* all workers share"):
            run_job(
                dict,
                {"a": ()},
                known=lambda _: None,
                finish=lambda item, answer: answer,
                reads=lambda _: video,
                writes=out,
                executor=SerialExecutor(),
                default=SerialExecutor,
                title="",
                show=False,
            )
    assert list(out.iterdir()) == []
    assert Path(seen[-1]).parent == out


def test_versions_must_agree(cluster: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of workers that join later, which are checked with the first call."""
    address = cluster.scheduler_address
    others = {**dask_connection.own_versions(), "av": "1.0"}
    with DaskWorkers(address) as executor:
        monkeypatch.setattr(dask_workers, "own_versions", lambda: others)
        with pytest.raises(UserError, match=r"sends work to the worker tcp://\S+ has av 1\.0, and"):
            probe_all([next(root.rglob("*.mp4"))], executor)
    monkeypatch.setattr(dask_connection, "own_versions", lambda: others)
    with pytest.raises(
        UserError, match=r"the Dask scheduler has av .*, and this one 1\.0; install"
    ):
        DaskWorkers(address)


def test_a_lost_scheduler_is_one_sentence(root: Path, capsys: Capture) -> None:
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as cluster,
        DaskWorkers(cluster.scheduler_address) as executor,
    ):
        assert "has no workers yet; waiting for them" in capsys.readouterr().err
        killer = threading.Timer(1.0, cluster.close)
        killer.start()
        with pytest.raises(UserError, match=r"no longer answers\); the same command continues"):
            probe_all([next(root.rglob("*.mp4"))], executor)
        killer.join()


def test_mistakes_are_one_sentence(
    root: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    def fails(*options: str, words: str) -> None:
        out = ["--out", str(tmp_path / "out")]
        for command in ("index", "prepare", "shard", "doctor"):
            assert main([command, str(root), *out, *options]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("error: ")
            assert words in line

    with dask.config.set({"distributed.comm.timeouts.connect": "100ms"}), socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fails("--scheduler", "tcp://127.0.0.1:1", words="no Dask scheduler answers at tcp://127")
        fails("--scheduler", "", words="--scheduler is empty; give an address, such as tcp://")
        fails("--scheduler", "nowhere", words="no Dask scheduler answers at nowhere")
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(dask_connection, "_PATIENCE", 0.1)
        fails("--scheduler", address, words="(something else does, as a dashboard would)")
    file = tmp_path / "s.json"
    fails("--scheduler", str(file), words="s.json does not exist; start dask scheduler")
    file.write_text("{}")
    fails("--scheduler", str(file), words="s.json is no file of a Dask scheduler")
    fails("--scheduler", "tcp://a:1", "--workers", "2", words="--workers counts processes of this")
    for module in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    fails("--scheduler", "tcp://127.0.0.1:1", words="run pip install 'vclr_lightning[dask]'")
    assert not (tmp_path / "out").exists()
    assert main(["index", str(root), "--out", str(tmp_path / "m.arrow"), "--workers", "1"]) == 0


@pytest.mark.filterwarnings("ignore:Port 8787 is already in use:UserWarning")
def test_the_page_s_script_for_slurm_hands_its_workers_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs to its end; only SLURM's commands and ours are replaced by ones that take notes."""
    (tmp_path / "jobs").mkdir()
    waiting = f'while [ "$(ls {tmp_path}/jobs | wc -l)" -lt 20 ]; do sleep 0.05; done'
    for name, line in {
        "sbatch": f'cp "$1" {tmp_path}/jobs/$$; echo "Submitted batch job $$"',
        "scancel": f"echo $1 >> {tmp_path}/cancelled",
        "vclr": f"{waiting}; echo $@ > {tmp_path}/given",
    }.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    page = Path(__file__).parents[3] / "docs" / "data.md"
    (code,) = re.findall(r"^```py\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    exec(code, {})
    given = (tmp_path / "given").read_text().split()
    assert given[0] == "prepare"
    assert given[-2] == "--scheduler"
    for job in (tmp_path / "jobs").iterdir():
        text = job.read_text()
        assert "#SBATCH -p cpu" in text
        assert f"dask_worker {given[-1]} " in text
        assert "--nthreads 32 " in text
        assert "--nworkers" not in text  # one process, whose threads decode in others
