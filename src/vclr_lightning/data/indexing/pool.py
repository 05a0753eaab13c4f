"""Work on many files in parallel, each in a process that may crash or hang."""

from __future__ import annotations

import contextlib
import json
import os
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
from vclr_lightning.core.processes import ended_from_outside, how_ended, is_stopped
from vclr_lightning.core.stopping import SIGNALS

TIME_LIMIT = 900.0  # seconds for one file, decoded to its end

PROBING = "vclr_lightning.data.indexing.worker"
_CODE = (
    "import sys; sys.path[:] = {!r}; from vclr_lightning.core.processes import end_with_parent; "
    "end_with_parent({}); from {} import main; main()"
)
_ATTEMPTS = 3  # at a file, where a process is ended from outside
_GLANCE = 1.0  # seconds
_STOPPED = 10.0  # seconds that a process may be stopped


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

    A process that is killed or stopped from outside is replaced, and its file read again. A file at
    which a process crashes, or that takes longer than ``limit`` seconds, is answered with
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
    processes = [_Process(settings, module, stopped) for _ in range(min(workers, len(paths)))]
    limit_of = limit if callable(limit) else lambda _: limit

    def serve(process: _Process) -> None:
        # What this thread starts is left alone by a signal to the process group.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
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


class _Lost(Exception):  # noqa: N818  # says how
    """The process has ended, or is stopped: by no fault of its own where ``passing``."""

    def __init__(self, how: str, *, passing: bool = False) -> None:
        super().__init__(how)
        self.passing = passing


class _Process:
    """A worker process, started when it is first asked and again after it died.

    Args:
        settings: keyword arguments of the module's ``answer``.
        module: whose ``main`` it runs.
        over: set when nobody waits for answers any more.
    """

    def __init__(self, settings: Mapping[str, object], module: str, over: threading.Event) -> None:
        self._settings = settings
        self._module = module
        self._over = over
        self._running: subprocess.Popen[str] | None = None

    def ask(self, path: Path, limit: float) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(path, limit)
            except _Lost as lost:
                self.close()
                if not lost.passing:
                    return {"reason": str(lost)}
                if attempt == _ATTEMPTS - 1:
                    times = f"the process that reads it {lost}, {_ATTEMPTS} times"
                    return {"reason": times, "passing": True}
        raise AssertionError

    def _ask(self, path: Path, limit: float) -> dict[str, Any]:
        process = self._running or self._start()
        self._tell(process, str(path))
        content: dict[str, Any] = json.loads(self._hear(process, limit))
        if "fault" in content:
            fault = CodeFault(*content["fault"])
            fault.__notes__ = content["notes"]
            raise fault
        return content

    def _start(self) -> subprocess.Popen[str]:
        self._running = process = subprocess.Popen(
            [sys.executable, "-c", _CODE.format(sys.path, os.getpid(), self._module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            bufsize=1,
        )
        self._tell(process, self._settings)
        try:
            self._hear(process, TIME_LIMIT)
        except _Lost as lost:
            if lost.passing:
                raise
            raise RuntimeError(
                f"a process that reads videos did not start; to see why, run: {sys.executable} "
                f'-c "import {self._module}"'
            ) from lost
        return process

    def _tell(self, process: subprocess.Popen[str], what: object) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # if it died, its output ends as well
            process.stdin.write(json.dumps(what) + "\n")

    def _hear(self, process: subprocess.Popen[str], limit: float) -> str:
        """Return the next line, which may take ``limit`` seconds.

        Raises:
            _Lost: there is none.
        """
        assert process.stdout is not None
        waited = stopped = 0.0
        # Glances, not a deadline: it would have passed where this process itself was stopped.
        while not select.select([process.stdout], [], [], _GLANCE)[0]:
            waited += _GLANCE
            stopped = stopped + _GLANCE if is_stopped(process.pid) else 0.0
            if self._over.is_set() or stopped >= _STOPPED:
                raise _Lost("was stopped (SIGSTOP)", passing=True)
            if waited >= limit:
                raise _Lost(f"takes longer than {limit:g} s to read")
        if line := process.stdout.readline():
            return line
        code = process.wait()
        if ended_from_outside(code):
            raise _Lost(how_ended(code), passing=True)
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        raise _Lost(f"the decoder crashed ({how})")

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    def close(self) -> None:
        process, self._running = self._running, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes, waits for it
                pass
