"""The last rows of several tensors, on each rank, as part of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.core.distributed import gather_objects, rank, world_size


class RecentRows:
    """Holds the last ``limit`` rows over all ranks, each rank its share (rounded up).

    Args:
        limit: number of rows.

    Example:
        >>> recent = RecentRows(3)
        >>> for start in range(0, 6, 2):
        ...     recent.add({"x": torch.arange(start, start + 2.0)[:, None]})
        >>> recent.gathered()["x"].flatten().tolist()
        [3.0, 4.0, 5.0]
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._parts: dict[str, list[Tensor]] = {}
        self._loaded: list[dict[str, Tensor]] | None = None

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Add rows to the tensors of these names; rows of another shape than before start anew."""
        self._restore(rows)
        for name, new in rows.items():
            held = self._parts.setdefault(name, [])
            if held and held[0].shape[1:] != new.shape[1:]:
                held.clear()
            held.append(new)
            while sum(map(len, held)) - len(held[0]) >= self._share():
                del held[0]

    def clear(self) -> None:
        """Forget all rows."""
        self._parts, self._loaded = {}, None

    def own(self) -> dict[str, Tensor]:
        """Return this rank's rows, oldest first."""
        return {name: torch.cat(held)[-self._share() :] for name, held in self._parts.items()}

    def gathered(self) -> dict[str, Tensor]:
        """Return the rows of all ranks, rank by rank; every rank has to call it."""
        own = self.own()
        if world_size() == 1:
            return own
        ranks = gather_objects({name: rows.cpu() for name, rows in own.items()})
        names = [name for name in own if all(name in one for one in ranks)]
        return {name: torch.cat([one[name] for one in ranks]).to(own[name]) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Return the rows of each rank; every rank has to call it."""
        waiting = self._loaded  # not yet taken up: nothing was added
        own = {name: rows.cpu() for name, rows in self.own().items()}
        return {"ranks": gather_objects(own) if waiting is None else waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the rows, unless the number of ranks is another."""
        self._loaded = state["ranks"] if len(state["ranks"]) == world_size() else None

    def _share(self) -> int:
        return -(-self.limit // world_size())

    def _restore(self, like: Mapping[str, Tensor]) -> None:
        ranks, self._loaded = self._loaded, None
        for name, rows in ranks[rank()].items() if ranks else ():
            if name in like:
                self._parts[name] = [rows.to(like[name].device)]
