"""Work on many files in parallel, each in a process that may crash or hang."""

from __future__ import annotations

import contextlib
import json
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import CodeFault

TIME_LIMIT = 900.0  # seconds for one file, decoded to its end

PROBING = "vclr_lightning.data.indexing.worker"
_CODE = "import sys; sys.path[:] = {!r}; from {} import main; main()"


def probe_all(
    paths: Sequence[Path],
    *,
    settings: Mapping[str, object],
    workers: int,
    limit: float | Callable[[Path], float] = TIME_LIMIT,
    module: str = PROBING,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each path with the worker's answer, in the order they come in.

    A file at which a process crashes, or that takes longer than ``limit`` seconds, is answered with
    that as its reason. Processes end with the iterator, also when it is closed early.

    Args:
        paths: files to probe, or to do to what ``module`` does.
        settings: keyword arguments of the module's work.
        workers: number of processes.
        limit: seconds, for every file or by file.
        module: whose ``main`` a process runs, see :mod:`vclr_lightning.data.indexing.worker`.
        waiting: called every second while no answer comes.

    Raises:
        CodeFault: what is done to a file fails by its own fault.
    """
    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in paths:
        todo.put(path)
    answers: queue.SimpleQueue[tuple[Path, dict[str, Any]] | Exception] = queue.SimpleQueue()
    stopped = threading.Event()
    processes = [_Process(settings, module) for _ in range(min(workers, len(paths)))]
    limit_of = limit if callable(limit) else lambda _: limit

    def serve(process: _Process) -> None:
        while not stopped.is_set():
            try:
                path = todo.get_nowait()
            except queue.Empty:
                return
            try:
                answers.put((path, process.ask(path, limit_of(path))))
            except Exception as error:
                answers.put(error)
                return

    threads = [threading.Thread(target=serve, args=(p,), daemon=True) for p in processes]
    try:
        for thread in threads:
            thread.start()
        for _ in paths:
            while True:
                with contextlib.suppress(queue.Empty):
                    got = answers.get(timeout=1)
                    break
                waiting()
            if isinstance(got, Exception):
                raise got
            yield got
    finally:
        stopped.set()
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join()
        for process in processes:
            process.close()


class _Process:
    """A worker process, started when it is first asked and again after it died."""

    def __init__(self, settings: Mapping[str, object], module: str) -> None:
        self._settings = settings
        self._module = module
        self._running: subprocess.Popen[str] | None = None

    def ask(self, path: Path, limit: float) -> dict[str, Any]:
        process = self._running = self._running or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # if it died, its output ends as well
            process.stdin.write(json.dumps(str(path)) + "\n")
        ready, _, _ = select.select([process.stdout], [], [], limit)
        line = process.stdout.readline() if ready else ""
        if line:
            content: dict[str, Any] = json.loads(line)
            if "fault" in content:
                fault = CodeFault(*content["fault"])
                fault.__notes__ = content["notes"]
                raise fault
            return content
        self.kill()
        code = process.wait()
        self.close()
        if not ready:
            return {"reason": f"takes longer than {limit:g} s to read"}
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        reason = {"reason": f"the decoder crashed ({how})"}
        return reason | {"passing": True} if -code == signal.SIGKILL else reason  # out of memory?

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE.format(sys.path, self._module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            bufsize=1,
        )
        self._running = process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._settings) + "\n")
        if not process.stdout.readline():
            raise RuntimeError(
                f"a process that reads videos did not start; to see why, run: {sys.executable} "
                f'-c "import {self._module}"'
            )
        return process

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def close(self) -> None:
        process, self._running = self._running, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes, waits for it
                pass
