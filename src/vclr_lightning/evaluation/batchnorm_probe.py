"""A probe of BatchNorm and a linear classifier, trained by SGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import MultiStepLR

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import torch_generator
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.cross_validation import Probe, ProbeData, ProbeScores, prepared
from vclr_lightning.evaluation.probe_heads import BatchNormHead
from vclr_lightning.evaluation.settings import check_count, check_number


@dataclass(frozen=True, kw_only=True)
class BatchNormProbe(Probe):
    """CoCLR's probe: BatchNorm, then a linear classifier; SGD whose rate falls in steps.

    Han, Xie and Zisserman, "Self-supervised co-training for video representation learning",
    NeurIPS 2020. Scores are those after the last epoch; nothing is chosen.

    Attributes:
        learning_rate: of SGD.
        weight_decay: of SGD, of all parameters.
        epochs: passes over the features.
        milestones: epochs after which the rate falls to a tenth.
        batch_size: videos per step.
        momentum: of SGD.
        seed: of the initial weights and of the order of the videos.
        device: where to fit.

    Raises:
        UserError: a number is out of range; from :meth:`score`, if the fit diverges.

    Example:
        >>> data = ProbeData(torch.eye(4), torch.tensor([0, 1, 0, 1]), torch.arange(4), 2)
        >>> BatchNormProbe().score(data, torch.eye(4), show=False).scores.argmax(dim=1).tolist()
        [0, 1, 0, 1]
    """

    learning_rate: float = 1.0
    weight_decay: float = 1e-3
    epochs: int = 100
    milestones: Sequence[int] = (60, 80)
    batch_size: int = 1024
    momentum: float = 0.9
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("momentum", self.momentum, least=0, below=1)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size, least=2)
        check_count("seed", self.seed, least=0)
        for milestone in self.milestones:
            check_count("milestones", milestone)

    def score(self, train: ProbeData, test: Tensor, *, show: bool = True) -> ProbeScores:
        rows, unseen = prepared(train, test, False, self.device)
        if len(rows.features) < 2:
            raise UserError("there is one training video, and BatchNorm needs two or more")
        generator = torch_generator(self.seed, "batchnorm")
        head = BatchNormHead(rows.features.shape[1], rows.classes, generator=generator)
        head.to(rows.features.device)
        optimizer = torch.optim.SGD(
            head.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        schedule = MultiStepLR(optimizer, list(self.milestones), gamma=0.1)
        for _ in track(range(self.epochs), "BatchNorm probe", show=show):
            order = torch.randperm(len(rows.features), generator=generator)
            parts = list(torch.split(order.to(rows.features.device), self.batch_size))
            if len(parts[-1]) == 1:  # which has no variance
                parts[-2:] = [torch.cat(parts[-2:])]
            for part in parts:
                loss = cross_entropy(head(rows.features[part]), rows.targets[part])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()
        with torch.no_grad():
            scores = head.eval()(unseen).cpu()
        if not bool(scores.isfinite().all()):
            raise UserError(
                f"the probe diverges at learning_rate={self.learning_rate:g}; take a smaller one"
            )
        return ProbeScores(scores, f"BatchNorm and linear, learning rate {self.learning_rate:g}")
