"""Loaders whose workers do not affect what is loaded, and whose position can be resumed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.processes import end_with_creator
from vclr_lightning.core.stopping import signals_blocked
from vclr_lightning.data.loading.collate import Collate, Failure, as_tensors, shared_memory
from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.loading.workers import (
    WorkerOptions,
    WorkerWatch,
    expect_deaths,
    stop_workers,
)

if TYPE_CHECKING:
    from vclr_lightning.core.lightning import Trainer

_END = object()


class _Guarded(Dataset[Any]):
    """Returns errors that end the run as values: raised in a worker, they would arrive as text."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._dataset[key]
        except (UserError, CodeFault) as error:
            return Failure(error)


def _begin_worker(_: int, *, from_main_thread: bool) -> None:
    end_with_creator(from_main_thread=from_main_thread)


class BatchLoader:
    """Loads the samples of given batches, in their order, as tensors.

    Args:
        dataset: returns a sample for a key.
        batches: lists of keys, iterated again each time.
        workers: how samples are loaded.

    Raises:
        UserError, CodeFault: from iterating, where the dataset raises it in any process.
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
            # Otherwise starting an epoch would draw a number from torch's global generator.
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
        """Return an iterator over the next batches; start the workers if there are none."""
        assert self._loader is not None
        main = threading.current_thread() is threading.main_thread()
        self._loader.worker_init_fn = partial(_begin_worker, from_main_thread=main)
        self._collate.free, _ = shared_memory()
        with nullcontext() if self._started else signals_blocked():
            iterator = iter(self._loader)
        if isinstance(iterator, _MultiProcessingDataLoaderIter) and iterator not in self._started:
            self._started.append(iterator)
            expect_deaths(iterator)  # which the watch reports
        return iterator

    def close(self) -> None:
        """Stop the workers; iterating afterwards is an error."""
        self._loader = None
        stop_workers(self._started)


class EpochLoader(BatchLoader):
    """Loads training epochs and resumes at its position in batches *consumed*.

    The position does not count what workers have prefetched. Iterating begins at the position last
    loaded with :meth:`load_state_dict`, once, and otherwise at the beginning of the epoch set by
    :meth:`set_epoch`. Lightning calls both, and saves the state with each checkpoint.

    Args:
        dataset: takes ``(epoch, row)`` keys and returns samples of a
            :class:`~vclr_lightning.core.types.Batch`.
        batches: which keys make which batch.
        workers: how samples are loaded.

    Attributes:
        on_start: called when the first batch of an iteration is asked for; may still move the
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
        """Where Lightning announces an epoch."""
        return self._epochs

    @property
    def epoch(self) -> int:
        """The epoch that is being, or is next to be, loaded."""
        return self._epochs.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``; within that very epoch, stay."""
        self._epochs.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if self.on_start is not None:
            self.on_start()
        self._epochs.consumed = self._epochs.start
        for batch in super().__iter__():
            self._epochs.consumed += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position: ``batch`` of ``batches`` batches of ``epoch`` were consumed."""
        return {"epoch": self.epoch, "batch": self._epochs.consumed, "batches": len(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the batches that had been consumed.

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


def restore_position(trainer: Trainer, batches: EpochBatches) -> None:
    """Give a checkpoint's position to a loader that was built before the checkpoint was restored.

    A module that asks for the length of the run in ``configure_optimizers`` makes Lightning build
    the loader before it restores the loops, and then forget the position. To be called before the
    first batch is loaded.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop._combined_loader_states_to_load:
        loop._load_combined_loader_states()
        # Lightning announced the epoch already; the position may be the end of the one before.
        batches.set_epoch(loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
