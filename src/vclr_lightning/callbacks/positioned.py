"""The position within an epoch of dataloaders that have none of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from vclr_lightning.core.random import random_state, random_state_kept, set_random_state

Position = dict[str, Any]


class PositionedLoader:
    """A loader that can go on after the batches that were consumed; else as it was.

    What a torch ``DataLoader`` loads follows from the global random generators at two moments: when
    its iteration begins, which seeds its workers, and when it is asked for the first batch, where a
    sampler draws its order. Both are kept; going to a position repeats them, and reads the consumed
    batches once more to pass them over. A loader with a state is given it instead.

    Args:
        loader: any iterable of batches.

    Example:
        >>> import torch
        >>> plain = DataLoader(range(6), batch_size=2, shuffle=True)
        >>> loader = PositionedLoader(plain)
        >>> batches = iter(loader)
        >>> first, second = next(batches), next(batches)
        >>> position, third = loader.position(0), next(batches)
        >>> again = PositionedLoader(plain)
        >>> again.go_to(position, epoch=0)
        >>> bool((next(iter(again)) == third).all())
        True
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._passed: deque[Position] = deque(maxlen=4)  # positions before the last fetches
        self._passing: _Passing | None = None
        self._goal: tuple[Position, int] | None = None

    # Code that looks at `trainer.train_dataloader` sees the loader.

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)

    @property
    def _iterator(self) -> Any:  # of a DataLoader; Lightning resets it to stop its workers
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self._loader._iterator = value

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        goal, self._goal = self._goal, None
        if goal is None:
            begun = self._moment()
            self._passing = _Passing(self, iter(self._loader), {"begun": begun})
        else:
            self._passing = self._continued(*goal)
        return self._passing

    def _continued(self, position: Position, epoch: int) -> _Passing:
        self._set_epoch(epoch)
        if "random" not in position["begun"]:  # an iteration that is only to begin
            self._restore(position["begun"])
            begun = self._moment()
            return _Passing(self, iter(self._loader), {"begun": begun})
        with random_state_kept():
            self._restore(position["begun"])
            if (state := position.get("state")) is not None:
                self._loader.load_state_dict(state)
            iterator = iter(self._loader)
            if position["batches"] and state is None:
                self._restore(position["first"])
                for _ in range(position["batches"]):
                    next(iterator, None)
            return _Passing(self, iterator, position)

    def position(self, back: int) -> Position:
        """Return the position before the last ``back`` fetches."""
        assert self._passing is not None
        return self._passed[-back] if back else self._passing.position()

    def next_epoch(self) -> Position:
        """Return the position before an iteration that has not begun, but for global generators."""
        return {"batches": 0, "begun": {"own": self._own()}}

    def go_to(self, position: Position, *, epoch: int) -> None:
        """Let the next iteration begin at a position in an epoch."""
        self._goal = position, epoch

    def _moment(self) -> Position:
        return {"random": random_state(), "own": self._own()}

    def _restore(self, moment: Position) -> None:
        if "random" in moment:
            set_random_state(moment["random"])
        for generator, state in zip(self._generators(), moment["own"], strict=False):
            generator.set_state(state)

    def _own(self) -> list[Any]:
        return [generator.get_state() for generator in self._generators()]

    def _generators(self) -> list[Any]:
        """Return the generators that the loader and its samplers were given."""
        found = {id(g): g for part in self._parts() if (g := getattr(part, "generator", None))}
        return list(found.values())

    def _parts(self) -> list[Any]:
        parts = [self._loader, *self._samplers(), self._shared_sampler()]
        return [part for part in parts if part is not None]

    def _samplers(self) -> list[Any]:
        batches = getattr(self._loader, "batch_sampler", None)
        return [getattr(self._loader, "sampler", None), batches, getattr(batches, "sampler", None)]

    def _shared_sampler(self) -> Any:
        """Return the sampler whose samples Lightning shares between the ranks, if any."""
        inner = (getattr(sampler, "dataset", None) for sampler in self._samplers())
        return next((s for i in inner if (s := getattr(i, "_sampler", None)) is not None), None)

    def _set_epoch(self, epoch: int) -> None:
        for part in self._parts():
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)


class StatefulPositionedLoader(PositionedLoader):
    """The same for a loader with a state, so that Lightning sees that it has one."""

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's own state."""
        return dict(self._loader.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the loader's own state."""
        self._loader.load_state_dict(state)


class _Passing:
    """One iteration: notes the position before each fetch."""

    def __init__(self, loader: PositionedLoader, iterator: Iterator[Any], begin: Position) -> None:
        self._loader, self._iterator = loader, iterator
        self._begun, self._first = begin["begun"], begin.get("first")
        self._batches = begin.get("batches", 0)
        self._before = begin.get("before")

    def __iter__(self) -> _Passing:
        return self

    def __next__(self) -> Any:
        if self._before is not None:
            self._loader._restore(self._before)
        # From these the dataset draws, without workers, and the module's hooks of the transfer.
        before, self._before = self._loader._moment(), None
        self._first = self._first or before
        self._loader._passed.append(self.position() | {"before": before})
        batch = next(self._iterator)
        self._batches += 1
        return batch

    def position(self) -> Position:
        """Return the position now: with what is needed to be here again."""
        position = {"batches": self._batches, "begun": self._begun, "first": self._first}
        stateful = type(self._loader) is StatefulPositionedLoader
        # A loader does not know the state of a sampler that Lightning has put into its own.
        if self._batches and stateful and self._loader._shared_sampler() is None:
            position["state"] = self._loader.state_dict()
        return position


def has_state(loader: Any) -> bool:
    """Return whether a loader says that it has a position of its own."""
    return all(callable(getattr(loader, name, None)) for name in ("state_dict", "load_state_dict"))


def positioned(loader: Any) -> PositionedLoader:
    """Return a loader with a position."""
    if type(loader) in (PositionedLoader, StatefulPositionedLoader):
        return loader  # type: ignore[no-any-return]
    return (StatefulPositionedLoader if has_state(loader) else PositionedLoader)(loader)


def keeps_position(loader: Any) -> bool:
    """Return whether a loader itself continues after the batches that were consumed, and exactly.

    Not so without a length, as Lightning then fetches a batch ahead, and not with torch's and
    torchdata's loaders, which draw from the global random generators.
    """
    return has_state(loader) and hasattr(loader, "__len__") and not isinstance(loader, DataLoader)
