"""The resumable job: a function of each item, executed by workers that may be lost."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any, TypeVar

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.jobs.attempt import Answer, Attempt, shared_files
from vclr_lightning.data.jobs.worker_process import WorkerLostError

_IN_FLIGHT = 4096  # calls that are submitted and not done: a cluster may have 1000 cores
_REFRESH = 1.0  # seconds between updates of the progress bar while nothing finishes

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_job(
    function: Callable[[Item], Mapping[str, Any]],
    items: Mapping[str, Item],
    *,
    known: Callable[[Item], Result | None],
    finish: Callable[[Item, Answer], Result],
    executor: Executor | None,
    default: Callable[[], Executor],
    title: str,
    reads: Callable[[Item], Path] | None = None,
    writes: Path | None = None,
    limit: Callable[[Item], float | None] = lambda _: None,
    together: int = 1,
    failures: str = "failed",
    size: Callable[[Item], int] = lambda _: 1,
    show: bool = True,
) -> tuple[list[Result], int]:
    """Apply ``function`` to the items whose result is not known yet.

    An error that may pass is retried after a pause; a :class:`VideoError`, a crash and an exceeded
    time limit are the item's failure, and the job goes on. However the job ends, results that went
    through ``finish`` are kept by it, and calls that are still executing are ended.

    Args:
        function: executed by a worker; importable or a :func:`functools.partial`, like its
            arguments and values picklable.
        items: by a name for messages.
        known: the result of an earlier run, if it is still valid.
        finish: turns the answer on an item into its result, and stores it.
        executor: of the caller, who shuts it down: threads, processes or a cluster's.
        default: makes one where ``executor`` is ``None``.
        title: of the progress bar.
        reads: a file that ``function`` reads for an item. Each worker of ``executor`` must see the
            first item's, or it would call all videos missing.
        writes: an existing folder into whose tree ``function`` writes. Each worker must see it.
        limit: seconds that an item may take, for executors that can end a call; by default theirs.
        together: items whose work justifies one message to another machine.
        failures: what failed items are called there.
        size: of an item, in units of the progress bar.
        show: whether to show progress.

    Returns:
        The results in the order of ``items``, and for how many of these ``function`` was called.

    Raises:
        UserError: raised by ``function`` for a mistake that concerns all items, such as a full
            disk; a worker does not see the files; or the executor has lost its workers.
        CodeFault: ``function`` raised anything else.

    Example:
        >>> from vclr_lightning.data.jobs import SerialExecutor
        >>> run_job(
        ...     lambda item: {"double": 2 * item},
        ...     {"a": 1, "b": 2},
        ...     known=lambda item: 2 if item == 1 else None,
        ...     finish=lambda item, answer: answer.values["double"],
        ...     executor=SerialExecutor(),
        ...     default=SerialExecutor,
        ...     title="doubling",
        ...     show=False,
        ... )
        ([2, 4], 1)
    """
    results = {name: result for name, item in items.items() if (result := known(item)) is not None}
    new = {name: item for name, item in items.items() if name not in results}
    done = failed = 0
    if new:
        with progress_bar(title, sum(map(size, new.values())), show=show) as update:

            def refresh() -> None:
                update(done, f"{failed:,} {failures}")

            elsewhere = executor is not None
            source = reads(next(iter(new.values()))) if reads and elsewhere else None
            with shared_files(source, writes if elsewhere else None) as seen:
                calls = (
                    (Attempt(function, limit(item), seen, together), name, item)
                    for name, item in new.items()
                )
                for name, answer in _answers(calls, executor, default, refresh):
                    results[name] = finish(new[name], answer)
                    done += size(new[name])
                    failed += answer.reason is not None
                    refresh()
    return [results[name] for name in items], len(new)


def _answers(
    calls: Iterable[tuple[Attempt[Item], str, Item]],
    executor: Executor | None,
    default: Callable[[], Executor],
    waiting: Callable[[], None],
) -> Iterator[tuple[str, Answer]]:
    """Yield the answers as they come in; ``waiting`` is called every second meanwhile."""
    pool = executor or default()
    pending: dict[Future[Answer], str] = {}
    finished: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()

    def next_answer() -> tuple[str, Answer]:
        while True:
            try:
                future = finished.get(timeout=_REFRESH)
            except queue.Empty:
                waiting()
                continue
            return pending.pop(future), _answer(future)

    try:
        for attempt, name, item in calls:
            try:
                future = pool.submit(attempt, name, item)
            except BrokenExecutor as error:
                raise _broken(error) from error
            pending[future] = name
            future.add_done_callback(finished.put)
            while len(pending) >= _IN_FLIGHT or not finished.empty():
                yield next_answer()
        while pending:
            yield next_answer()
    finally:
        for future in pending:
            future.cancel()
        if executor is None:
            pool.shutdown(cancel_futures=True)


def _answer(future: Future[Answer]) -> Answer:
    try:
        return future.result()
    except WorkerLostError as lost:
        return Answer(reason=str(lost), transient=lost.transient)
    except BrokenExecutor as error:
        raise _broken(error) from error


def _broken(error: BrokenExecutor) -> UserError:
    return UserError(f"the executor has lost its workers ({error}); the same command continues")
