"""Average recall of temporal proposals as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.proposals import AverageRecall, Floats, average_recall

NUMBERS = (1, 5, 10, 100)


class AverageRecallAtAN(Metric):
    """AR@AN and the area under it, as computed by ActivityNet's own toolkit.

    Args:
        numbers: average numbers of proposals at which to report recall, 1 to 100.
        options: of :class:`torchmetrics.Metric`.

    Shape:
        - :meth:`update` takes for each video proposals ``(n, 3)`` (start, end, score) and true
          segments ``(g, 2)``, in the same unit
        - :meth:`compute` returns ``()``, fractions by name: ``ar1``, ``ar5`` and so on, ``auc``

    Raises:
        UserError: a number is not within 1 to 100; from :meth:`update`, the numbers of videos
            differ; from :meth:`compute`, there is no proposal or no true segment.

    Example:
        >>> metric = AverageRecallAtAN(numbers=(1, 100))
        >>> found = np.array([[0.0, 1.0, 0.9], [4.0, 5.0, 0.1]])
        >>> metric.update([found], [np.array([[0.0, 1.0], [4.0, 5.0]])])
        >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
        {'ar1': 0.5, 'ar100': 1.0, 'auc': 0.988}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    proposals: list[Tensor]
    truths: list[Tensor]
    counts: list[Tensor]

    def __init__(self, *, numbers: Sequence[int] = NUMBERS, **options: Any) -> None:
        super().__init__(**options)
        if bad := [n for n in numbers if not 1 <= n <= 100]:
            raise UserError(f"AR@{bad[0]} is not defined; take numbers from 1 to 100")
        self.numbers = tuple(numbers)
        for state in ("proposals", "truths", "counts"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(
        self, proposals: Sequence[Floats | Tensor], truths: Sequence[Floats | Tensor]
    ) -> None:
        """Add videos."""
        if len(proposals) != len(truths):
            raise UserError(f"{len(proposals)} videos have proposals, and {len(truths)} truths")
        for found, truth in zip(proposals, truths, strict=True):
            rows = torch.as_tensor(found, dtype=torch.float64, device=self.device).reshape(-1, 3)
            true = torch.as_tensor(truth, dtype=torch.float64, device=self.device).reshape(-1, 2)
            self.proposals.append(rows)
            self.truths.append(true)
            self.counts.append(torch.tensor([[len(rows), len(true)]], device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the recall at each number, and the area, by name."""
        result = self.curve()
        values = {f"ar{n}": result.at(n) for n in self.numbers} | {"auc": result.auc}
        return {
            name: torch.tensor(value, dtype=torch.float64, device=self.device)
            for name, value in values.items()
        }

    def curve(self) -> AverageRecall:
        """Return recall at every threshold and average number, of the videos of this process."""
        if len(self.counts) == 0:
            raise UserError("there are no videos to measure proposals on")
        counts = dim_zero_cat(self.counts).cpu().numpy()
        ends = counts.cumsum(axis=0)[:-1]
        proposals, truths = (
            np.split(dim_zero_cat(rows).cpu().numpy(), ends[:, column])
            for column, rows in enumerate((self.proposals, self.truths))
        )
        try:
            return average_recall(proposals, truths)
        except ValueError as error:
            raise UserError(f"there is nothing to measure: {error}") from error
