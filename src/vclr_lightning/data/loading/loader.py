"""Loaders: workers that do not matter to what is loaded, and a position that can be resumed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from functools import partial
from typing import Any, TypedDict

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.stopping import signals_blocked
from vclr_lightning.data.loading.collate import Collate, Failure, as_tensors, shared_memory
from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.loading.workers import (
    WorkerOptions,
    WorkerWatch,
    begin_worker,
    expect_deaths,
    stop_workers,
)

_END = object()


class LoaderState(TypedDict):
    """Where training stands: ``batch`` batches of ``epoch`` were handed out, of ``batches``."""

    epoch: int
    batch: int
    batches: int


class _Guarded(Dataset[Any]):
    """Hands over what ends the run as a value: raised in a worker, it would arrive as a text."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._dataset[key]
        except (UserError, CodeFault) as error:
            return Failure(error)


class BatchLoader:
    """Loads the samples of given batches, in their order, as tensors.

    Args:
        dataset: gives a sample for a key.
        batches: lists of keys, iterated anew each time.
        workers: how.

    Raises:
        UserError, CodeFault: from iterating, where the dataset raises it, in whatever process.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: Iterable[Sequence[Hashable]],
        workers: WorkerOptions | None = None,
    ) -> None:
        workers = workers or WorkerOptions()
        self._batches = batches
        self._options = workers
        self._started: list[Any] = []
        weakref.finalize(self, stop_workers, self._started)
        parallel: dict[str, Any] = {}
        if workers.num_workers > 0:
            parallel = {
                "num_workers": workers.num_workers,
                "multiprocessing_context": workers.start_method,
                "prefetch_factor": workers.prefetch_factor,
                "persistent_workers": workers.persistent,
            }
        ahead = workers.num_workers * workers.prefetch_factor
        self._collate = Collate(min(ahead, len(batches)) if isinstance(batches, Sized) else ahead)
        self._loader: DataLoader[Any] | None = DataLoader(
            _Guarded(dataset),
            batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of lists of keys
            collate_fn=self._collate,
            pin_memory=workers.pin_memory,
            # Of its own, or starting an epoch would draw a number from torch's global generator.
            generator=torch.Generator(),
            **parallel,
        )

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        # A generator: the workers start with the first batch asked for, not with iter().
        if self._loader is None:
            raise RuntimeError("the loader was closed")
        watch = WorkerWatch(self._started, self._options.timeout)
        if self._options.num_workers > 0:
            watch.start()
        try:
            with watch.waiting():
                iterator = self._start()
            while True:
                with watch.waiting():
                    batch = next(iterator, _END)
                if batch is _END:
                    return
                if isinstance(batch, Failure):
                    raise batch.error
                yield as_tensors(batch)
        finally:
            watch.close()
            if not self._options.persistent:
                stop_workers(self._started)

    def _start(self) -> Iterator[Any]:
        """Start the workers, if they are not there, with the next batches."""
        assert self._loader is not None
        main = threading.current_thread() is threading.main_thread()
        self._loader.worker_init_fn = partial(begin_worker, from_main_thread=main)
        self._collate.free, _ = shared_memory()
        with nullcontext() if self._started else signals_blocked():
            iterator = iter(self._loader)
        if isinstance(iterator, _MultiProcessingDataLoaderIter) and iterator not in self._started:
            self._started.append(iterator)
            expect_deaths(iterator)  # they are noticed where a batch is waited for
        return iterator

    def close(self) -> None:
        """Stop the workers; iterating afterwards is an error."""
        self._loader = None
        stop_workers(self._started)


class EpochLoader(BatchLoader):
    """Loads training epochs, knows its position in batches *consumed*, and can go on from it.

    The position counts what was handed out, not what workers have prefetched. Iterating begins at
    the position last loaded with :meth:`load_state_dict`, once, and otherwise at the beginning of
    the epoch named with :meth:`set_epoch`. Lightning drives it by itself: it saves the state with
    each checkpoint and sets the epoch.

    Args:
        dataset: takes ``(epoch, row)`` keys, and gives samples of a
            :class:`~vclr_lightning.core.types.Batch`.
        batches: which keys make which batch.
        workers: how samples are loaded.

    Attributes:
        on_start: called when the first batch of an iteration is asked for; it may still move the
            position.

    Example:
        >>> from torch.utils.data import Dataset
        >>> class Rows(Dataset):
        ...     def __getitem__(self, key):
        ...         return {"index": key[1], "valid": True}
        >>> loader = EpochLoader(Rows(), EpochBatches(8, batch_size=2))
        >>> loader.set_epoch(3)
        >>> seen = [batch["index"].tolist() for batch in loader]
        >>> loader.load_state_dict({"epoch": 3, "batch": 1, "batches": 4})
        >>> [batch["index"].tolist() for batch in loader] == seen[1:]
        True
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: EpochBatches,
        workers: WorkerOptions | None = None,
    ) -> None:
        super().__init__(dataset, batches, workers)
        self._epochs = batches
        self.on_start: Callable[[], None] | None = None

    @property
    def batch_sampler(self) -> EpochBatches:
        """What Lightning looks for to announce an epoch."""
        return self._epochs

    @property
    def epoch(self) -> int:
        """The epoch that is being, or is next to be, loaded."""
        return self._epochs.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``; in the midst of that very epoch, stay."""
        self._epochs.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if self.on_start is not None:
            self.on_start()
        self._epochs.consumed = self._epochs.start
        for batch in super().__iter__():
            self._epochs.consumed += 1
            yield batch

    def state_dict(self) -> LoaderState:
        """Return the position, with which a checkpoint resumes."""
        return {"epoch": self.epoch, "batch": self._epochs.consumed, "batches": len(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batches that had been consumed.

        Raises:
            UserError: an epoch has another number of batches than when the state was saved.
        """
        if state["batches"] != len(self):
            raise UserError(
                f"the checkpoint was saved after batch {state['batch']} of {state['batches']} in "
                f"epoch {state['epoch']}, but an epoch now has {len(self)} batches; resume with "
                "the videos, batch_size and accumulate_grad_batches that it was saved with"
            )
        self._epochs.resume(int(state["epoch"]), int(state["batch"]))
