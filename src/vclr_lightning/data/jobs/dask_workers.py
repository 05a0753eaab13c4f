"""The workers of a Dask cluster, as an executor for a job.

Dask distributes the calls, and repeats those of lost workers. Each thread of a worker executes its
calls in a process of its own, as :class:`~vclr_lightning.data.jobs.executors.LocalProcesses` does:
a video that crashes the decoder or hangs costs that process and not the worker, whose other calls
Dask would count as suspicious, and is rejected for the same reason as on one machine.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from functools import partial
from itertools import count
from typing import Any, NamedTuple, ParamSpec, TypeVar

from vclr_lightning.core.screen import notice
from vclr_lightning.core.stopping import block_signals
from vclr_lightning.data.jobs.dask_connection import (
    check_versions,
    compare_versions,
    connected,
    own_versions,
)
from vclr_lightning.data.jobs.worker_process import TIME_LIMIT, WorkerLostError, WorkerProcess

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_own = threading.local()


class _Submitted(NamedTuple):
    future: Future[Any]
    content: bytes  # pickled function and arguments
    limit: float  # seconds
    together: int


class DaskWorkers(Executor):
    """Runs calls on the workers of a Dask cluster, in processes that a call may crash or hang.

    A context manager: leaving it with an exception cancels the calls, also those that are
    executing. Functions must be importable on the workers, and arguments and results picklable.
    Workers may come and go at any time; without any, calls wait.

    A call is a task of Dask, which takes milliseconds of the scheduler and of this process. Of
    functions with an attribute ``together``, up to so many calls that wait share one.

    Args:
        scheduler: its address, such as ``tcp://10.0.0.1:8786``, or a file that ``dask scheduler
            --scheduler-file`` wrote.
        limit: seconds that a call may take, unless its function has an attribute ``limit``.

    Raises:
        UserError: Dask is not installed, no scheduler answers, or versions differ.
    """

    def __init__(self, scheduler: str, *, limit: float = TIME_LIMIT) -> None:
        self._scheduler, self._limit = scheduler, limit
        self._client = connected(scheduler)
        try:
            workers = check_versions(self._client)
        except BaseException:
            self._client.close()
            raise
        if not workers:
            notice(f"the Dask scheduler at {scheduler} has no workers yet; waiting for them")
        self._pool = self._client.get_executor(pure=False)
        self._calls: queue.SimpleQueue[_Submitted | None] = queue.SimpleQueue()
        self._numbers = count()
        self._sent: dict[int, tuple[Future[Any], Sequence[Future[Any]]]] = {}
        self._shut = False
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Schedule ``fn(*args, **kwargs)``; see :meth:`concurrent.futures.Executor.submit`.

        Its error is a :class:`WorkerLostError` if the call crashed its process or exceeded the time
        limit, or if Dask has given it up after losing several workers that executed it.
        """
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Result] = Future()
        limit = getattr(fn, "limit", None) or self._limit
        content = pickle.dumps((fn, args, kwargs))
        self._calls.put(_Submitted(future, content, limit, getattr(fn, "together", 1)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster: after the submitted calls or, with ``cancel_futures``, at once."""
        if not self._shut:
            self._shut = True
            self._calls.put(None)
        if wait and not cancel_futures:
            self._sender.join()
            self._pool.shutdown(wait=True)
        self._client.close()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.shutdown(cancel_futures=error is not None)

    def _send_all(self) -> None:
        """Send the calls in the order of their submission, those that wait together."""
        while (first := self._calls.get()) is not None:
            calls = [first]
            while len(calls) < first.together and not self._calls.empty():
                if (further := self._calls.get()) is None:
                    self._calls.put(None)
                    break
                calls.append(further)
            if calls := [call for call in calls if not call.future.cancelled()]:
                self._send(calls)

    def _send(self, calls: Sequence[_Submitted]) -> None:
        futures = [call.future for call in calls]
        number = next(self._numbers)
        contents = [(call.content, call.limit) for call in calls]
        try:
            sent = self._pool.submit(execute_calls, contents, own_versions())
        except Exception:  # the client is closed
            sent = Future()
            sent.set_exception(CancelledError())
        # By number: Dask would keep the results of futures that refer to each other.
        self._sent[number] = sent, futures
        for future in futures:
            future.add_done_callback(partial(self._cancel, number))
        sent.add_done_callback(partial(self._settle, number))

    def _cancel(self, number: int, future: Future[Any]) -> None:
        """Cancel a task of which no call is wanted any more."""
        sent, futures = self._sent.get(number, (None, ()))
        if sent is not None and all(one.cancelled() for one in futures):
            sent.cancel()

    def _settle(self, number: int, sent: Future[Any]) -> None:
        """Hand the outcome of a task over to the futures of its calls."""
        _, futures = self._sent.pop(number)
        try:
            outcomes = sent.result()
        except CancelledError:
            lost = f"the Dask scheduler at {self._scheduler} no longer answers"
            outcomes = [(False, BrokenExecutor(lost))] * len(futures)
        except Exception as error:
            outcomes = [(False, _translated(error))] * len(futures)
        for future, (succeeded, result) in zip(futures, outcomes, strict=True):
            if not future.set_running_or_notify_cancel():
                continue
            if succeeded:
                future.set_result(result)
            else:
                future.set_exception(result)


def execute_calls(
    calls: Sequence[tuple[bytes, float]], versions: Mapping[str, str | None]
) -> list[tuple[bool, Any]]:
    """Execute pickled calls in a process that belongs to this thread of a Dask worker.

    Args:
        calls: the pickled function, arguments and keyword arguments of each, and its time limit.
        versions: of the process that sends them.

    Returns:
        For each call whether it succeeded, and its result or error.

    Raises:
        UserError: the versions here are others.
    """
    from distributed import get_worker

    compare_versions(versions, f"the process that sends work to the worker {get_worker().address}")
    if not hasattr(_own, "process"):
        block_signals()  # Ctrl-C is for the worker, which ends its processes
        _own.process = WorkerProcess(_Unwanted())
    outcomes: list[tuple[bool, Any]] = []
    for content, limit in calls:
        try:
            outcomes.append((True, _own.process.call(content, limit)))
        except Exception as error:
            outcomes.append((False, error))
        if _Unwanted().is_set():
            break
    return outcomes


class _Unwanted:
    """Set once the scheduler no longer wants the task of this thread, or its client is gone."""

    def is_set(self) -> bool:
        from distributed import get_worker

        worker = get_worker()
        task = worker.state.tasks.get(worker.get_current_task())
        return task is None or task.state == "cancelled"


def _translated(error: Exception) -> Exception:
    """Return what Dask's own errors mean for a job, and any other unchanged."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        times = error.allowed_failures + 1
        return WorkerLostError(
            f"the Dask worker that reads it was lost, {times} times", transient=True
        )
    return error
