"""VTHCL: a video at two speeds, seen by two networks, contrasted at several depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vclr_lightning.core.distributed import rank, world_size
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.memory_bank import MemoryBank
from vclr_lightning.core.random import torch_generator
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import unit
from vclr_lightning.functional.nt_xent import sampled_nce
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.heads import check_temperature
from vclr_lightning.objectives.queued import contrast_metrics

R50_STAGES: Mapping[str, tuple[int, int]] = {
    "layer2": (512, 64),
    "layer3": (1024, 128),
    "layer4": (2048, 256),
}
"""Features of the slow and of the fast R3D-50 at each stage."""


class VTHCL(Objective):
    """Contrast a slow and a fast view of a video with each other's memory banks, at each stage.

    Yang, Xu, Dai, Zhou, "Video representation learning with visual tempo consistency" (2020). Two
    networks, both trained, see one span of time at two rates. At each stage, the pooled features of
    either network are projected, and

        ``L = sum over the stages of w_k (nce(slow_k, fast bank) + nce(fast_k, slow bank))``,

    with :func:`~vclr_lightning.functional.nt_xent.sampled_nce`: the positive is the video's row of
    the other pathway's bank, the negatives are ``negatives`` rows of it, drawn with replacement.
    There is a bank for each pathway and stage, with a row for each video; rows are updated after
    both losses, with their own pathway's embedding. The authors have published no code; what the
    paper leaves open follows CMC's.

    Args:
        num_features: features of the backbone, which are those of the last stage; not used.
        slow: the view of the slow pathway, as :meth:`Request.of` describes it, less its layer.
        fast: the view of the fast pathway.
        stages: features of the slow and of the fast network, by the layer that is read; ``None``
            leaves a layer out.
        weights: of the stages; 1 by default.
        embedding_dim: size of the embeddings.
        negatives: rows drawn for each query.
        temperature: divides every similarity.
        bank_momentum: share of a row that an update keeps.
        videos: number of videos, whose ids are below it. ``None``: as many as are trained on.
        seed: of the banks and of the draws.

    Raises:
        UserError: a value is out of range; from forward, if features or videos are others.

    Example:
        >>> vthcl = VTHCL(num_features=2048, negatives=8, videos=5)
        >>> vthcl.requests()["layer3.fast"]
        Request(encoder='fast', views=('fast',), layer='layer3')
        >>> sorted(vthcl.banks)
        ['layer2_fast', 'layer2_slow', 'layer3_fast', 'layer3_slow', 'layer4_fast', 'layer4_slow']
    """

    videos: Tensor

    def __init__(
        self,
        *,
        num_features: int,
        slow: str = "slow",
        fast: str = "fast:fast",
        stages: Mapping[str, Sequence[int] | None] = R50_STAGES,
        weights: Mapping[str, float] | None = None,
        embedding_dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        videos: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)
        used = {layer: sizes for layer, sizes in stages.items() if sizes is not None}
        if not used or negatives < 1:
            raise UserError(f"stages={used} and negatives={negatives} must not be empty")
        if unknown := sorted(set(weights or {}) - set(used)):
            raise UserError(f"weights has {', '.join(unknown)}, but stages {', '.join(used)}")
        self.views = {"slow": slow, "fast": fast}
        self.stages = {layer: (weights or {}).get(layer, 1.0) for layer in used}
        self.negatives, self.seed = negatives, seed
        self.heads, self.banks = nn.ModuleDict(), nn.ModuleDict()
        for layer, sizes in used.items():
            for pathway, size in zip(("slow", "fast"), sizes, strict=True):
                name = _name(layer, pathway)
                self.heads[name] = nn.Linear(size, embedding_dim)
                keys = (seed, "VTHCL", name)
                self.banks[name] = MemoryBank(
                    videos or 1, embedding_dim, momentum=bank_momentum, seed=keys
                )
        self._given = videos is not None
        # In order, so that a video's row is found by its id.
        self.register_buffer("videos", torch.arange(videos or 0))
        self._drawn = (-1, 0)  # step, and micro-batches of it

    def prepare(self, video_ids: Tensor) -> None:
        """Give each training video a row, unless their number was given."""
        if not self._given:
            self.videos = torch.unique(video_ids).to(self.videos)
            for bank in self.banks.values():
                cast(MemoryBank, bank).resize(len(self.videos))

    def requests(self) -> Mapping[str, Request]:
        return {
            f"{layer}.{pathway}": Request.of(f"{view}@{layer}")
            for layer in self.stages
            for pathway, view in self.views.items()
        }

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        rows = self._rows(batch["video_id"])
        drawn = self._draw(
            len(rows), cast(Mapping[str, Any], batch).get("step", 0), device=rows.device
        )
        pending: dict[str, Tensor] = {"rows": rows}
        losses, found = [], []
        for layer, weight in self.stages.items():
            for pathway in self.views:
                name = _name(layer, pathway)
                pending[name] = self._embed(features[f"{layer}.{pathway}"], name)
            for query, other in (("slow", "fast"), ("fast", "slow")):
                bank = cast(MemoryBank, self.banks[_name(layer, other)]).rows
                embedding = pending[_name(layer, query)]
                one = sampled_nce(embedding, bank[rows], bank, drawn, temperature=self.temperature)
                losses.append(weight * one.loss)
                found.append(contrast_metrics(one, self.temperature))
        return ObjectiveOutput(
            loss=torch.stack(losses).sum(),
            metrics={key: torch.stack([m[key] for m in found]).mean() for key in found[0]},
            pending={name: value.detach() for name, value in pending.items()},
        )

    def commit(self, pending: Mapping[str, Tensor], step: int) -> None:
        for name, bank in self.banks.items():
            cast(MemoryBank, bank).update(pending["rows"], pending[name])

    def _embed(self, features: Tensor, name: str) -> Tensor:
        head = cast(nn.Linear, self.heads[name])
        if features.shape[2] != head.in_features:
            layer, _, pathway = name.rpartition("_")
            raise UserError(
                f"{layer} of the {pathway} network has {features.shape[2]} features, but stages of "
                f"VTHCL says {head.in_features}; set stages.{layer} to those of both networks"
            )
        return unit(head(features.squeeze(1)))

    def _rows(self, video_ids: Tensor) -> Tensor:
        """Return the rows of videos."""
        rows = torch.searchsorted(self.videos, video_ids)
        if not video_ids.is_cuda:
            there = self.videos[rows.clamp_max(len(self.videos) - 1)] if len(self.videos) else -1
            if (missing := video_ids[there != video_ids]).numel():
                raise UserError(
                    f"the memory banks of VTHCL have no row for video {int(missing[0])}; set its "
                    "videos to a number above all ids, or train with a VideoDataModule"
                )
        return rows

    def _draw(self, count: int, step: int, *, device: torch.device) -> Tensor:
        """Draw the negatives of this process's videos, ``(B, K)``: its part of a global draw."""
        micro = self._drawn[1] + 1 if self._drawn[0] == step else 0
        self._drawn = (step, micro)
        generator = torch_generator(self.seed, "VTHCL", step, micro, device=device)
        shape = (count * world_size(), self.negatives)
        drawn = torch.randint(len(self.videos), shape, generator=generator, device=device)
        return drawn[rank() * count : (rank() + 1) * count]


def _name(layer: str, pathway: str) -> str:
    return f"{layer.replace('.', '_')}_{pathway}"
