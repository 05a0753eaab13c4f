"""The LightningModule of finetuning with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import seed_of
from vclr_lightning.core.schedules import SchedulerFactory
from vclr_lightning.core.types import Batch
from vclr_lightning.evaluation.encoders import evaluation_mode
from vclr_lightning.functional.embedding import Averaging, average_views
from vclr_lightning.models.network_spec import record_network
from vclr_lightning.models.tsm import TemporalShift
from vclr_lightning.modules import classifier_heads as heads
from vclr_lightning.modules.clip_sizes import check_first_batch
from vclr_lightning.modules.device_layout import Compile, compile_networks, laid_out
from vclr_lightning.modules.encoding import encoded, through
from vclr_lightning.modules.encoding_plan import MAPS
from vclr_lightning.modules.input_pixels import backbone_number, pixels_of
from vclr_lightning.modules.key_batchnorm import running_statistics
from vclr_lightning.modules.metric_averaging import MetricAveragingModule
from vclr_lightning.modules.optimization import grouped_optimizer, tsm_groups, with_schedule
from vclr_lightning.modules.parameter_groups import ParameterGroup, build_optimizer
from vclr_lightning.modules.trainer_checks import check_trainable, warn_of_slow_statistics


class FinetuneModule(MetricAveragingModule):
    """Train a classifier of videos on a pretrained backbone (Section 4.2 of the paper).

    ``"tsn"``: the features of a video's frames (or clips) are averaged, then dropout and a linear
    classifier. ``"tsm"``: channels are shifted between frames within the network
    (:class:`~vclr_lightning.models.tsm.TemporalShift`), dropout and classifier are applied to each
    frame, and the scores are averaged; parameters are optimized in the groups of
    :data:`~vclr_lightning.modules.optimization.TSM_SCALES`. ``"gru"``: DPC's, a ConvGRU reads the
    maps of successive clips (:class:`~vclr_lightning.modules.classifier_heads.BlockContext`), then
    dropout and classifier.

    Args:
        backbone: the network; ``"tsm"`` needs a 2D one.
        num_classes: number of classes.
        optimizer: takes the parameters to train, such as ``partial(SGD, lr=0.01)``.
        scheduler: takes the optimizer, ``steps_per_epoch`` and ``epochs``; stepped once after
            each optimizer step. ``None`` for a constant learning rate.
        head: ``"tsn"``, ``"tsm"`` or ``"gru"``.
        dropout: probability of dropping a feature before the classifier.
        batchnorm: normalise the features over the batch before dropout and classifier.
        averaging: whether a video's score is the average of its views' ``"logits"`` or
            ``"probabilities"``; ``None``: logits for ``"tsn"``, probabilities for the others.
        batch_flip_p: chance of mirroring a batch as a whole, as CoCLR does.
        frozen: train the classifier (and BatchNorm) alone; backbone and GRU do not change.
        init_std: standard deviation of the classifier's initial weights; ``None``: 0.01 for
            ``"tsn"``, 0.001 for ``"tsm"``, and orthogonal weights for ``"gru"``. Biases start at 0.
        shift_divisions: for ``"tsm"``: 8 shifts an eighth of the channels each way.
        mean, std: of each channel's pixels, in 0 to 1; ``None`` for the backbone's.
        channels_last, compile: as in :class:`~vclr_lightning.modules.PretrainModule`.
        class_names: names of the classes, if known.
        groups: parameters by name that have a learning rate and weight decay of their own; not for
            ``"tsm"``, which has its groups.
        seed: of every random number drawn in training.

    Attributes:
        query_encoder: the backbone, under the name common to all modules, so that other stages
            find it in a checkpoint.

    Shape: ``(B, S, C, T, H, W)`` uint8 to ``(B, num_classes)``.

    Raises:
        UserError: a value is out of range or unknown.

    Example:
        >>> from functools import partial
        >>> from vclr_lightning.models import TinyBackbone
        >>> module = FinetuneModule(
        ...     backbone=TinyBackbone(width=8),
        ...     num_classes=5,
        ...     optimizer=partial(torch.optim.SGD, lr=0.1),
        ...     head="tsm",
        ... )
        >>> module(torch.zeros(2, 8, 3, 1, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: SchedulerFactory | None = None,
        head: heads.Head = "tsn",
        dropout: float = 0.5,
        batchnorm: bool = False,
        averaging: Averaging | None = None,
        batch_flip_p: float = 0.0,
        frozen: bool = False,
        init_std: float | None = None,
        shift_divisions: int = 8,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool | None = None,
        compile: Compile = False,
        class_names: Sequence[str] = (),
        groups: Mapping[str, ParameterGroup | None] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        shares = {"dropout": dropout, "batch_flip_p": batch_flip_p}
        self.averaging = heads.check_head(head, averaging=averaging, groups=groups, **shares)
        if not frozen:
            check_trainable(backbone, else_=", or give frozen=True")
        self.pixels = pixels_of(backbone, mean=mean, std=std, channels_last=bool(channels_last))
        self.query_encoder = backbone.to(memory_format=self.pixels.memory_format)
        self.shift = TemporalShift(backbone, divisions=shift_divisions) if head == "tsm" else None
        features = backbone_number(backbone, "num_features")
        self.context = heads.BlockContext(num_features=features) if head == "gru" else None
        self.norm = nn.BatchNorm1d(features) if batchnorm else None
        self.dropout = nn.Dropout(dropout)
        self.classifier = heads.linear_classifier(
            features, num_classes, head=head, init_std=init_std
        )
        self.head, self.frozen, self.num_classes, self.seed = head, frozen, num_classes, seed
        self.class_names, self.batch_flip_p = tuple(class_names), batch_flip_p
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self._optimizer, self._scheduler, self._groups = optimizer, scheduler, groups or {}
        self._unchecked, self._channels_last = True, channels_last
        self.train()  # a loaded backbone is in evaluation mode
        compile_networks([backbone], compile, inside=head == "gru")

    @property
    def required_views(self) -> frozenset[str]:
        """Names of the views that training needs."""
        return frozenset({"segments"})

    def train(self, mode: bool = True) -> FinetuneModule:
        """Set the training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        return [p for p in (self.query_encoder, self.context) if p is not None and self.frozen]

    def forward(self, clips: Tensor) -> Tensor:
        """Return each video's logits."""
        if self.shift is not None:
            self.shift.num_frames = clips.shape[1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self._features(clips)
        if self.norm is not None and self.shift is None:
            if self.training and len(features) < 2:
                raise UserError("module.batchnorm needs a batch_size of 2 or more in each process")
            features = self.norm(features)
        logits: Tensor = self.classifier(self.dropout(features))
        return logits if self.shift is None else logits.mean(dim=1)

    def _features(self, clips: Tensor) -> Tensor:
        """Return a video's features ``(B, F)``; with shifts each frame's, ``(B, S, F)``."""
        if self.context is not None:
            maps = encoded(self.query_encoder, clips, pixels=self.pixels, kinds=(MAPS,))[MAPS]
            return cast("Tensor", self.context(maps))
        features = through(self.query_encoder, clips, pixels=self.pixels)
        return features if self.shift is not None else features.mean(dim=1)

    def scores(self, views: Tensor) -> Tensor:
        """Return the class scores of test videos, computed view by view and averaged.

        By default TSN averages logits, the others probabilities.

        Shape: ``(B, k, S, C, T, H, W)`` uint8 to ``(B, num_classes)``
        """
        with evaluation_mode(self), torch.no_grad():
            logits = torch.stack([self(view) for view in views.unbind(1)], dim=1).float()
        return average_views(logits, averaging=self.averaging)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of the labels."""
        clips = batch["views"]["segments"]
        if self.batch_flip_p and float(torch.rand(())) < self.batch_flip_p:
            clips = clips.flip(-1)
        logits = self(clips).float()
        loss = cross_entropy(logits, batch["label"])
        accuracy = (logits.argmax(dim=1) == batch["label"]).float().mean()
        values = {"train/loss": loss, "train/top1": accuracy}
        self.log_means(values, videos=len(logits), shown=values)
        return loss

    def configure_optimizers(self) -> Any:
        if self.head == "tsm":
            groups = tsm_groups(self.query_encoder, self.classifier)
            optimizer = grouped_optimizer(self._optimizer, groups)
        else:
            optimizer = build_optimizer(self, self._optimizer, self._groups)
        return with_schedule(optimizer, self._scheduler, self)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Keep the statistics equal on all ranks, as evaluation and checkpoints assume.
        trained = None if self.frozen else self.query_encoder
        if statistics := running_statistics(trained, self.norm):
            distributed.average_in_place(statistics)

    def setup(self, stage: str) -> None:
        if self._channels_last is None:
            self.pixels = laid_out({"": self.query_encoder}, {"": self.pixels}, self.trainer)[""]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        super().train()  # Lightning leaves modes as they are
        if not self.frozen:
            warn_of_slow_statistics(self.trainer, self.query_encoder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        record_network(
            checkpoint,
            self.query_encoder,
            classes=list(self.class_names),
            finetuned={
                "head": self.head,
                "dropout": self.dropout.p,
                "batchnorm": self.norm is not None,
                "averaging": self.averaging,
                "frozen": self.frozen,
                "shift_divisions": self.shift.divisions if self.shift else 8,
                "mean": list(self.pixels.mean),
                "std": list(self.pixels.std),
            },
        )

    def on_train_start(self) -> None:
        self.train()  # after Lightning has warned about modules in evaluation mode

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self._unchecked and self.shift is None:
            check_first_batch({"query": self.query_encoder}, [("query", "segments")], batch)
        self._unchecked = False
        # Makes dropout the same after resuming.
        keys = (self.current_epoch, batch_idx, distributed.rank())
        torch.manual_seed(seed_of(self.seed, "step", *keys))
