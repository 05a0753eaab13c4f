"""The workers of a Dask cluster, as an executor for a job.

Dask distributes the calls, and repeats those of lost workers. Each thread of a worker executes its
calls in a process of its own, as :class:`~vclr_lightning.data.jobs.executors.LocalProcesses` does:
a video that crashes the decoder or hangs costs that process and not the worker, whose other calls
Dask would count as suspicious, and is rejected for the same reason as on one machine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import notice
from vclr_lightning.core.stopping import block_signals
from vclr_lightning.data.jobs.worker_process import TIME_LIMIT, WorkerLostError, WorkerProcess

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_SAME = ("vclr_lightning", "distributed", "av")  # the same bytes need the same encoder
_PATIENCE = 5.0  # seconds for an answer to a connection
_own = threading.local()


class DaskWorkers(Executor):
    """Runs calls on the workers of a Dask cluster, in processes that a call may crash or hang.

    A context manager: leaving it with an exception cancels the calls, also those that are
    executing. Functions must be importable on the workers, and arguments and results picklable.
    Workers may come and go at any time; without any, calls wait.

    Args:
        scheduler: its address, such as ``tcp://10.0.0.1:8786``, or a file that ``dask scheduler
            --scheduler-file`` wrote.
        limit: seconds that a call may take, unless its function has an attribute ``limit``.

    Raises:
        UserError: Dask is not installed, no scheduler answers, or versions differ.
    """

    def __init__(self, scheduler: str, *, limit: float = TIME_LIMIT) -> None:
        self._scheduler, self._limit = scheduler, limit
        self._client = _connected(scheduler)
        try:
            workers = self._check_versions()
        except BaseException:
            self._client.close()
            raise
        if not workers:
            notice(f"the Dask scheduler at {scheduler} has no workers yet; waiting for them")
        self._pool = self._client.get_executor(pure=False)

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Schedule ``fn(*args, **kwargs)``; see :meth:`concurrent.futures.Executor.submit`.

        Its error is a :class:`WorkerLostError` if the call crashed its process or exceeded the time
        limit, or if Dask has given it up after losing several workers that executed it.
        """
        limit = getattr(fn, "limit", None) or self._limit
        call = pickle.dumps((fn, args, kwargs))
        sent = self._pool.submit(call_in_process, call, limit, own_versions())
        future: Future[Result] = Future()
        future.add_done_callback(lambda done: sent.cancel() if done.cancelled() else None)
        sent.add_done_callback(partial(self._settle, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster: after the submitted calls or, with ``cancel_futures``, at once."""
        self._pool.shutdown(wait=wait and not cancel_futures)
        self._client.close()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.shutdown(cancel_futures=error is not None)

    def _settle(self, future: Future[Any], sent: Future[Any]) -> None:
        """Hand the outcome of Dask's future over to ours."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(sent.result())
        except CancelledError:
            lost = f"the Dask scheduler at {self._scheduler} no longer answers"
            future.set_exception(BrokenExecutor(lost))
        except Exception as error:
            future.set_exception(_translated(error))

    def _check_versions(self) -> int:
        """Compare the scheduler and the workers with this process; return how many workers are."""
        found = self._client.get_versions(check=False, packages=list(_SAME))
        machines = {"the Dask scheduler": found["scheduler"]}
        machines |= {f"the worker {name}": about for name, about in found["workers"].items()}
        for machine, about in machines.items():
            packages = {"python": _minor(about["host"]["python"])}
            _compare(packages | {name: about["packages"].get(name) for name in _SAME}, machine)
        return len(found["workers"])


def call_in_process(content: bytes, limit: float, versions: Mapping[str, str | None]) -> Any:
    """Execute a pickled call in a process that belongs to this thread of a Dask worker.

    Args:
        content: the pickled function, arguments and keyword arguments.
        limit: seconds that it may take.
        versions: of the process that sends it.

    Raises:
        UserError: the versions here are others.
        WorkerLostError: see :class:`WorkerProcess`.
    """
    from distributed import get_worker

    _compare(versions, f"the process that sends work to the worker {get_worker().address}")
    if not hasattr(_own, "process"):
        block_signals()  # Ctrl-C is for the worker, which ends its processes
        _own.process = WorkerProcess(_Unwanted())
    return _own.process.call(content, limit)


class _Unwanted:
    """Set once the scheduler no longer wants the call of this thread, or its client is gone."""

    def is_set(self) -> bool:
        from distributed import get_worker

        worker = get_worker()
        task = worker.state.tasks.get(worker.get_current_task())
        return task is None or task.state == "cancelled"


def _connected(scheduler: str) -> Any:
    try:
        from distributed import Client
        from distributed.versions import VersionMismatchWarning
    except ImportError as error:
        raise UserError(
            f"--scheduler {scheduler} needs Dask; run pip install 'vclr_lightning[dask]'"
        ) from error
    address = _address_in(Path(scheduler)) if scheduler.endswith(".json") else scheduler
    # What it would report in a log is said in one sentence here.
    for name in ("distributed", "distributed.client"):  # which Dask gives a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with ThreadPoolExecutor(1) as thread:  # this one may have a loop, as in a notebook
            thread.submit(asyncio.run, _shake_hands(address)).result()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)
            return Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split()) or "something else does, as a dashboard would"
        raise UserError(
            f"no Dask scheduler answers at {address} ({why}); start one with dask scheduler, or "
            "leave --scheduler out"
        ) from error


def _address_in(file: Path) -> str:
    """Return the address in a file that a scheduler wrote."""
    if not file.is_file():
        raise UserError(
            f"--scheduler {file} does not exist; start dask scheduler --scheduler-file {file}, or "
            "give its address"
        )
    try:
        return str(json.loads(file.read_text())["address"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--scheduler {file} is no file of a Dask scheduler") from error


async def _shake_hands(address: str) -> None:
    """Connect within a time limit: a client waits forever for the answer of another server."""
    import dask
    from distributed.comm import connect
    from distributed.security import Security

    limit = dask.utils.parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    connecting = connect(address, limit, **Security().get_connection_args("client"))
    comm = await asyncio.wait_for(connecting, limit + _PATIENCE)
    await comm.close()


def _translated(error: Exception) -> Exception:
    """Return what Dask's own errors mean for a job, and any other unchanged."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        times = error.allowed_failures + 1
        return WorkerLostError(
            f"the Dask worker that reads it was lost, {times} times", transient=True
        )
    return error


@cache
def own_versions() -> dict[str, str | None]:
    """Return the versions of what must be the same on all machines."""
    found: dict[str, str | None] = {"python": _minor(".".join(map(str, sys.version_info)))}
    for name in _SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _compare(theirs: Mapping[str, str | None], machine: str) -> None:
    for name, mine in own_versions().items():
        if (other := theirs.get(name)) != mine:
            raise UserError(
                f"{machine} has {name} {other or '(not installed)'}, and this one {mine}; install "
                "the same versions on all machines"
            )
